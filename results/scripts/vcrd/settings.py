"""What the plan runs: settings of vcrd by a short name, its rivals, and where each stage measures."""

from __future__ import annotations

CASES = {"relative": "cases", "floor": 0.2, "kappa": 2.0}
LIKELY, SUCCESS, AGREE, TRUTH = ({"validity": name} for name in ("step-likelihood", "success", "agreement", "truth"))
SUCCESS |= {"tries": 2}

# The readings that may be chosen. The first is the default of version 0.2.
SETTINGS: dict[str, dict[str, object]] = {
    "token-likelihood": {},
    "token-likelihood log-odds": {"relative": "log_odds", "kappa": 0.5},
    "token-likelihood cases": CASES,
    "token-likelihood hard": {"gate": "hard", "floor": 0.2},
    "token-likelihood token": {"step": "token"},
    "step-likelihood": LIKELY,
    "step-likelihood sharp": LIKELY | {"kappa": 16.0},
    "step-likelihood log-odds": LIKELY | {"relative": "log_odds", "kappa": 0.5},
    "step-likelihood ratio": LIKELY | {"relative": "ratio", "kappa": 1.0},
    "step-likelihood cases": LIKELY | CASES,
    "step-likelihood cases floor 0": LIKELY | CASES | {"floor": 0.0},
    "step-likelihood cases, both kept": LIKELY | CASES | {"both": 0.0},
    "step-likelihood cases, neither kept": LIKELY | CASES | {"neither": 0.0},
    "step-likelihood own step": LIKELY | CASES | {"own_step": True, "student_only": 1.0},
    "step-likelihood rest": LIKELY | {"scope": "rest"},
    "step-likelihood tokens": LIKELY | {"normaliser": "tokens"},
    "step-likelihood hard": LIKELY | {"gate": "hard", "floor": 0.2},
    "step-likelihood forward": LIKELY | {"divergence": "forward_kl"},
    "step-likelihood reverse": LIKELY | {"divergence": "reverse_kl"},
    "step-likelihood skew": LIKELY | {"divergence": "skew_kl"},
    "step-likelihood sampled": LIKELY | {"proposals": 3, "proposal_temperature": 1.0},
    "step-likelihood own text": LIKELY | {"on_policy": 1.0},
    "step-likelihood teacher's text": LIKELY | {"on_policy": 0.0},
    "step-likelihood span": LIKELY | {"step": "span", "span": 6},
    "success": SUCCESS,
    "success ratio": SUCCESS | {"relative": "ratio", "kappa": 1.0},
    "success cases": SUCCESS | CASES,
    "success by the student": SUCCESS | {"continued_by": "student"},
    "success teacher's text": SUCCESS | {"on_policy": 0.0},
    "agreement": AGREE,
    "agreement cases": AGREE | CASES,
    "agreement teacher's text": AGREE | {"on_policy": 0.0},
    "truth": TRUTH,
    "truth cases": TRUTH | CASES,
}
ORACLES: dict[
    str, dict[str, object]
] = {  # weights from the exact checker: never chosen, they mark what could be gained
    "oracle difference": {"validity": "verifier"},
    "oracle cases": {"validity": "verifier"} | CASES,
    "oracle cases, own step": {"validity": "verifier", "own_step": True, "student_only": 1.0} | CASES,
}
RIVALS = ("gkd", "rkl", "distillm2", "selectkd", "tip")
MARKS = ("untouched", "teacher", "seqkd")

VALIDATION, TEST = "math500@derivations", "amc23@derivations"
CHOSEN_IN = "slice"  # the arena whose validation problems choose the setting
VALIDATION_SEEDS, TEST_SEEDS = (100, 101), (0, 1, 2, 3, 4)
LONGER_SEEDS, LONGER_STEPS = (5, 6, 7, 8, 9), 480  # of the second plan, whose budget is that of gkd
ARENAS = ("slice", "several", "erring")
PLAIN = ("amc23@micro", "humaneval@micro")


def words(settings: dict[str, object]) -> list[str]:
    """The settings as ``--set`` writes them."""
    return [f"method.{key}={value}" for key, value in settings.items()]
