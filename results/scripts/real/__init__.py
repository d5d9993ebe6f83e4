"""The harness against plain transformers, lm-eval's and EvalPlus' own code, and peft, on the same real weights.

    python -m results.scripts.real.log_probs
    python -m results.scripts.real.saved_student --student FOLDER
    python -m results.scripts.real.lm_eval_texts
    python -m results.scripts.real.evalplus_texts
    python -m results.scripts.lora --recipe small --task dolly --steps 3

Each takes ``--out FILE.md`` and exits with 1 where the two sides differ without a known reason. ``harness fetch small``
comes first, or ``--model`` names a folder or hub id; benchmark files are read below HARNESS_DATA.
"""
