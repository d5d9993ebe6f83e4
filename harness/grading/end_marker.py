"""The markers with which published models end a turn or a text, and begin the turn of another."""

from __future__ import annotations

import re

# Every token in bars, <|im_end|> or <|user|>, is one: no program and no formula is written so.
END_MARKER = re.compile(
    r"<\|[A-Za-z][A-Za-z_]{1,30}\|>|<｜[^｜\n]{1,30}｜>|</s>|<eos>|<end_of_turn>|<end_of_utterance>|\[EOS\]|\[/?INST\]"
)
