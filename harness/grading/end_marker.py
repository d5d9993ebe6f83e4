"""The markers with which published models end a turn or a text, and begin the turn of another."""

from __future__ import annotations

import re

END_MARKER = re.compile(
    r"<\|(?:endoftext|im_end|im_start|eot_id|eom_id|end_of_text|end|EOT|eot|endofmask|file_separator|return|end_of_turn"
    r"|endofsentence|eos|user|assistant|system|observation|start_header_id|END_OF_TURN_TOKEN)\|>"
    r"|<｜(?:end▁of▁sentence|User|Assistant)｜>|<end_of_turn>|<end_of_utterance>|</s>|<eos>|\[EOS\]|\[/?INST\]"
)
