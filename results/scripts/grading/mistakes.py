"""Mistakes in people's own methods and tasks: changes of two small files that work, each of which is to be refused.

A mistake is a replacement of one text by another; ``HARMLESS`` changes keep a file right.
"""

from __future__ import annotations

from dataclasses import dataclass

METHOD = '''from dataclasses import dataclass

import torch

from harness.losses import forward_kl
from harness.method import Asking, Hindsight, Method, Mixture, Needs, Proposing, Speculation
from harness.options import option
from harness.types import Decoding, Source


@dataclass(frozen=True)
class Config:
    mix: float = option(0.5, "a share", low=0, high=1)
    shuffle: bool = option(False, "control: shuffled weights")


class Mine(Method):
    """Forward KL."""

    name, Config = "mine", Config
    needs = Needs(teacher="signal")

    def sources(self, step):
        return (Source.TEACHER,)

    def weight(self, tokens):
        return tokens.position + 1.0

    def objective(self, tokens):
        kl = forward_kl(tokens.student, tokens.teacher)
        return kl
'''
TASK = '''from harness.errors import BadInput
from harness.task import Dataset, Protocol, Task
from harness.types import Decoding, Problem, Prompt, Verdict


class Parity(Task):
    """Even or odd, answered in one word."""

    name, version, family, metric = "parity", "1", "instruction", "accuracy"
    dataset = Dataset("parity/test.jsonl", "example/parity", "0" * 40, "test.jsonl", "0" * 64, 4)
    decoding = Decoding(max_new_tokens=4)

    def problems(self, rows):
        found = []
        for i, row in enumerate(rows):
            if not isinstance(row.get("number"), int):
                raise BadInput(f"parity: row {i} has no whole number under 'number'")
            asked = f"Is {row['number']} even or odd?"
            found.append(Problem(str(i), Prompt(user=asked, plain=asked), ("even", "odd")[row["number"] % 2]))
        return found

    def grade(self, problem, text):
        right = text.strip().lower() == problem.reference
        return Verdict(problem.id, 0, float(right), "looked at the word")
'''
ROWS = [{"number": i} for i in range(4)]


@dataclass(frozen=True)
class Mistake:
    """``old`` becomes ``new`` in a file of ``kind``, method or task. The answer holds ``expected``; "" for harmless."""

    kind: str
    new: str
    expected: str
    old: str

    def made(self, text: str) -> str:
        """The text with the mistake; the text as it is where another mistake took its place."""
        return text.replace(self.old, self.new, 1)


def _changes(kind: str, old: str, *pairs: tuple[str, str], around: str = "{}") -> list[Mistake]:
    return [Mistake(kind, around.format(new), expected, old) for new, expected in pairs]


_RETURN, _NEEDS, _TEACHER = "        return kl\n", '    needs = Needs(teacher="signal")\n', "(Source.TEACHER,)"
_OPTION = 'option(0.5, "a share", low=0, high=1)'
_FIELD = f"    mix: float = {_OPTION}\n"
_NEED, _CLASS, _IMPORT = 'Needs(teacher="signal")', f"{_NEEDS}    {{}}\n", "{}\n\n\n@dataclass(frozen=True)\n"
METHODS = [
    # What an objective returns.
    *_changes(
        "method",
        _RETURN,
        ("return kl.sum()", "take out .sum()"),
        ("return kl[:, None]", ".squeeze(-1)"),
        ("return [float(v) for v in kl]", "a list of"),
        ("yield kl", "a generator"),
        ("return kl.to_sparse()", "a dense one"),
        ("return kl.to('meta')", "on cpu is wanted"),
        ("return torch.Tensor", "the class Tensor"),
        ("return kl > 0", "compute with .float()"),
        ("return kl.detach()", "without a gradient path"),
        ("return torch.nn.Parameter(kl.detach())", "without a gradient path"),
        ("return kl * float('nan')", "NaN or infinite"),
        ("kl.sum().backward(); return kl", "do not call .backward()"),
        ("tokens.student.register_hook(lambda g: 1 / 0); return kl", "ZeroDivisionError"),
        # Tensors that are shared, and metrics.
        ("tokens.teacher.zero_(); return kl", "tokens.teacher in place"),
        ("tokens.labels[:] = 0; return kl", "tokens.labels in place"),
        ("tokens.position += 1; return kl", "tokens.position in place"),
        ("tokens.student.data.mul_(0); return kl", "in place"),
        ("tokens.metrics = None; return kl", "tokens.metrics to None"),
        ("tokens.metrics[3] = kl; return kl", "a name has"),
        ("tokens.metrics['a\\n|'] = kl; return kl", "a name has"),
        ("tokens.metrics['loss'] = kl; return kl", "choose another name"),
        ("tokens.metrics['a'] = kl * float('nan'); return kl", "NaN or infinity"),
        # Exceptions, and the process.
        ("raise StopIteration", "StopIteration"),
        ("raise BrokenPipeError", "BrokenPipeError"),
        ("raise type('E', (Exception,), {'__str__': lambda e: 3})", "its __str__ raises TypeError"),
        ("raise ValueError('x ' * 10**6)", "ValueError: x x"),
        ("raise ValueError('\\x1b[31m\\u202e')", "ValueError"),
        ("import sys; sys.exit(0)", "calls sys.exit()"),
        ("f = lambda: f(); f()", "calls itself without end"),
        ("torch.set_default_dtype(torch.float64); return kl", "default dtype"),
        ("torch.set_grad_enabled(False); return kl", "records gradients"),
        ("import os; os.chdir('/'); return kl", "working directory"),
        ("import sys; sys.setrecursionlimit(60); return kl", "recursion limit"),
        ("return kl * self.config.mx", "'mx'"),
        ("return kl + tokens.reference_log_prob", "Needs(reference=True)"),
        ("return kl.cumsum(0)", "looks across tokens"),
        around="        {}\n",
    ),
    # What is imported or runs at import.
    *_changes(
        "method",
        "@dataclass(frozen=True)\n",
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit('bye')", "calls sys.exit()"),
        ("raise BrokenPipeError", "BrokenPipeError"),
        ("from . import helper", "cannot import name 'helper' from its folder"),
        ("from harness.method import Metod", "did you mean Method"),
        ("import harness.nothing", "the harness has no such module"),
        ("import nothing_like_this", "install nothing_like_this"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
        ("torch.set_default_device('meta')", "default device"),
        ("torch.set_num_threads(7)", "threads"),
        ("import os; os.chdir('/')", "working directory"),
        ("import signal; signal.alarm(1)", "timer"),
        ("def f(:", "invalid syntax"),
        ("x = " + "-" * 100_000 + "1", "nested too deep"),
        ("x = " + "(" * 300 + ")" * 300, "too many nested"),
        ("x = " + "9" * 5000, "4300 digits"),
        ("\0", "null bytes"),
        around=_IMPORT,
    ),
    # Settings.
    *_changes(
        "method",
        _FIELD,
        ("mix = 0.5", "has no type"),
        ("mix: float", "has no default"),
        ("mix: list = []", "mutable default"),
        ("mix: float = option('warm', 'x')", "is not a number"),
        ("mix: float = option(2.0, 'x', low=0, high=1)", "outside [0, 1]"),
        ("mix: float = option(float('nan'), 'x')", "not a finite number"),
        ("mix: float = option(0.5, 'x', low='0')", "low and high are numbers"),
        ("mix: str = option('a', 'x', choices='abc')", "a tuple"),
        ("mix: str = option('a', 'x', choices=('b',))", "is not one of b"),
        ("mix: object = option(print, 'x')", "can be recorded"),
        ("mix: object = option(torch.zeros(2), 'x')", "can be recorded"),
        ("mix: str = option('x' * 10**6, 'x')", "100,000 characters"),
        ("mix: int = option(10**5000, 'x')", "cannot be written as JSON"),
        ("mix: 'Nothing' = option(1, 'x')", "'Nothing' is not defined"),
        ("mix: float = option(0.5, 'x')\n    def __post_init__(self): raise KeyError('k')", "KeyError: 'k'"),
        around="    {}\n",
    ),
    *_changes("method", "shuffle: bool = option(False,", ("shuffle: int = option(0,", "the control of its weights")),
    *_changes("method", 'name, Config = "mine", Config', ('name = "mine"', "write Config = Config in it")),
    *_changes("method", 'name, Config = "mine", Config', ('name, config = "mine", Config', "did you mean Config?")),
    # Names that nothing reads, facts of the class, and its other parts.
    *_changes(
        "method",
        _NEEDS,
        ("variant = {}", "did you mean variants?"),
        ("reductions = 'token'", "did you mean reduction?"),
        ("def after_steps(self, step, report): pass", "did you mean after_step?"),
        ("variants = {3: {}}", "a name has letters"),
        ("variants = {'a/b': {}}", "a name has letters"),
        ("variants = {'a': {'mix': 7}}", "outside [0, 1]"),
        ("reduction = ['token']", "which is not token"),
        ("role = 'champion'", "which is not competitor"),
        ("note = 3", "text is wanted"),
        ("baseline = 'yes'", "not True or False"),
        ("def card(self): return {'a': object()}", "can be recorded"),
        ("def card(self): return {(1, 2): 'a'}", "keys are text"),
        ("def card(self): return {'a': float('nan')}", "not a finite number"),
        ("def card(self): return {'a': 'x' * 10**7}", "100,000 characters"),
        ("def after_step(self, step, report): self.state = None", "makes self.state None"),
        ("def after_step(self, step, report): self.state['x'] = print", "what a checkpoint cannot"),
        ("def after_step(self, step, report): report['loss'] = 0", "TypeError"),
        ("def __init__(self, config=None): pass", "leaves out super().__init__"),
        ("def __init__(self, config=None): raise ValueError('i')", "ValueError: i"),
        around=_CLASS,
    ),
    *_changes("method", "def sources", ("def source", "did you mean sources?")),
    *_changes("method", "def objective", ("def objektive", "lacks objective"), ("async def objective", "a coroutine")),
    *_changes(
        "method",
        "tokens.position + 1.0",
        ("-tokens.position", "finite values from 0"),
        ("torch.ones(len(tokens.labels), device='meta')", "holds no values of its own"),
        ("tokens.labels.fill_(0)", "tokens.labels in place"),
        ("1.0", "one per token"),
    ),
    # Needs that are none or contradict each other, and sources.
    *_changes(
        "method",
        _NEED,
        ("{}", "say needs = Needs(...)"),
        ("Needs", "say needs = Needs(...)"),
        ('Needs(teacher="logits")', "teacher='logits'"),
        ('Needs(teacher="signal", ranks=2.5)', "ranks=2.5"),
        ('Needs(teacher="signal", segment=["line"])', "segment=['line']"),
        ('Needs(teacher="signal", joint=Mixture("half"))', "teacher_share='half'"),
        ('Needs(teacher="signal", joint=Mixture(float("nan")))', "teacher_share=nan"),
        ('Needs(teacher="signal", joint=Speculation(0, Decoding(), Decoding()))', "joint.top_k=0"),
        ('Needs(teacher="signal", joint=Speculation(5, None, None))', "give a Decoding"),
        ('Needs(teacher="signal", proposals=Proposing(temperature="hot"))', "temperature='hot'"),
        ('Needs(teacher="signal", asking=Asking(decay="x"))', "a decay outside"),
        ('Needs(teacher="signal", asking=Asking(template="{prompt"))', "a malformed template"),
        ('Needs(teacher="signal", asking=Asking(template="{0}"))', "names fields"),
        ('Needs(teacher="signal", hindsight=Hindsight("x"))', "add rewards=True"),
        ('Needs(teacher="none")', "asks for Source.TEACHER"),
    ),
    *_changes(
        "method",
        _TEACHER,
        ("'teacher'", "return a tuple"),
        ("{Source.TEACHER}", "a set of 1"),
        ("(Source.TEACHER,) * 10**5", "100,000 sources"),
        ("(Source.REPLAY,) if step.index == 3 else (Source.TEACHER,)", "asks for Source.REPLAY"),
        ("(Source.TEACHER,) if step.index != 3 else 1 / 0", "ZeroDivisionError"),
    ),
]
_GRADE = '        return Verdict(problem.id, 0, float(right), "looked at the word")\n'
_DOC = "    decoding = Decoding(max_new_tokens=4)\n"
TASKS = [
    *_changes(
        "task",
        _GRADE,
        ("return right", "gave False"),
        ("return 1.0", "gave float 1.0"),
        ("return None", "gave None"),
        ("yield Verdict(problem.id, 0, 1.0, 'x')", "a generator"),
        ("return Verdict(problem.id, 0, '1', 'x')", "the score '1'"),
        ("return Verdict(problem.id, 0, right, 'x')", "write float(right)"),
        ("return Verdict(problem.id, 0, float('nan'), 'x')", "the score nan"),
        ("return Verdict(problem.id, 0, -0.1, 'x')", "the score -0.1"),
        ("return Verdict(problem.id, 0, 10**5000, 'x')", "the score a int"),
        ("return Verdict(problem.id, 0, 1.0, None)", "is not text"),
        ("return Verdict(problem.id, 0, 1.0, 'x' * 10**7)", "10,000,000 characters"),
        ("return Verdict(problem.id, 0, 1.0, 'x', error=True)", "error=True with the score"),
        ("return Verdict(problem.id, 0, 0.0, 'x', error='yes')", "error='yes'"),
        ("return Verdict('7', 0, 1.0, 'x')", "a verdict on problem '7'"),
        ("return Verdict(problem.id)", "TypeError"),
        ("self.n = getattr(self, 'n', 0) + 1; return Verdict(problem.id, 0, float(self.n % 2), 'x')", "two scores"),
        ("raise KeyError(problem.id) if problem.id == '3' else ValueError('x')", "grade must give a Verdict"),
        ("raise BrokenPipeError", "BrokenPipeError"),
        ("import sys; sys.exit()", "calls sys.exit()"),
        ("raise StopIteration", "StopIteration"),
        around="        {}\n",
    ),
    *_changes(
        "task",
        "        return found\n",
        ("pass", "gave None"),
        ("return (p for p in found)", "a generator"),
        ("return {p.id: p for p in found}", "a dict"),
        ("return found + found", "two problems of id"),
        ("return found + [None]", "gave None at place"),
        ("return rows", "at place 0"),
        ("return found[:2]", "one per row"),
        ("raise RuntimeError('hmm')", "RuntimeError: hmm"),
        ("import os; os.chdir('/'); return found", "working directory"),
        around="        {}\n",
    ),
    *_changes(
        "task",
        "Problem(str(i), Prompt(user=asked, plain=asked)",
        ("Problem(i, Prompt(user=asked, plain=asked)", "whose id is 0"),
        ("Problem('x' * 2000 + str(i), Prompt(user=asked, plain=asked)", "an id of 2,001 characters"),
        ("Problem(f'\\ud800{i}', Prompt(user=asked, plain=asked)", "half a character"),
        ("Problem(str(i), asked", "Prompt(user=..., plain=...) is wanted"),
        ("Problem(str(i), Prompt(user='', plain=asked)", "whose user is ''"),
        ("Problem(str(i), Prompt(user=asked, plain='\\udc80 x')", "half a character"),
        ("Problem(str(i), Prompt(user=asked, plain=asked, system=7)", "is not text"),
        ("Problem(str(i), Prompt(user=asked, plain=asked, sytem='x')", "TypeError"),
    ),
    *_changes(
        "task",
        _DOC,
        ("decoding = {}", "Decoding(max_new_tokens=...) is wanted"),
        ("decoding = Decoding(max_new_tokens='4')", "max_new_tokens='4'"),
        ("decoding = Decoding(temperature=float('nan'))", "temperature=nan"),
        ("decoding = Decoding(stop='abc')", "stop='abc'"),
        ("decoding = Decoding(temperature=float('inf'))", "temperature=inf"),
        ("decoding = Decoding(temperature=1.0, top_p=0.0)", "top_p=0.0"),
        ("measures_itself = True", "add a method measure"),
        ("def ask(self, problem): return None", "Prompt(user=..., plain=...) is wanted"),
        ("def ask(self, problem): return Prompt(user='', plain='')", "ask of task parity gave problem '0' a prompt"),
        ("def measures(self, graded): return None", "a dict is wanted"),
        ("def measures(self, graded): return {'a': float('nan')}", "not a finite number"),
        ("def measures(self, graded): raise KeyError('m')", "KeyError: 'm'"),
        ("def remarks(self, graded): return 'one line'", "a list is wanted"),
        ("def read_figures(self, graded): return {'a': object()}", "can be recorded"),
        ("def gold_completion(self, problem): return 3", "the text of a right answer"),
        ("def __init__(self, data, judge=None): pass", "leaves out super().__init__"),
        ("decodings = Decoding()", "did you mean decoding?"),
        ("def grade_alls(self, completions): pass", "did you mean grade_all?"),
        ("def grade_all(self, completions): return []", "gave 0 verdicts"),
        ("def decoding_for(self, problem, decoding): return None", "decoding_for of task parity is None"),
        ("def grader_identity(self): return {'a': object()}", "can be recorded"),
        ("def grader_identity(self): return {'a': id(object()) + len(str(self.__dict__.setdefault('n', [])))"
         ", 'b': self.n.append(0) or len(self.n)}", "changes from call to call"),
        ("title = '../../x'", "title of task parity is '../../x'"),
        ("note = 3", "text is wanted"),
        ("runs_programs = 'no'", "not True or False"),
        ("protocols = ['a']", "a dict of names"),
        ("protocols = {'a b': Protocol('x')}", "letters, digits"),
        ("protocols = {'a': Protocol('x', {'decoding': 3})}", "Decoding(max_new_tokens=...) is wanted"),
        ("def __init__(self, data, judge=None): raise KeyError('i')", "KeyError: 'i'"),
        around="    {}\n",
    ),
    *_changes(
        "task",
        '"parity", "1", "instruction", "accuracy"',
        ('"parity", 1, "instruction", "accuracy"', "version of task parity is 1"),
        ('"parity", "1\\n", "instruction", "accuracy"', "printable characters"),
        ('"par ity", "1", "instruction", "accuracy"', "up to 60 letters"),
        ('"parity", "1", "instruction", "accurracy"', "accurracy"),
        ('"gsm8k", "1", "instruction", "accuracy"', "two owners"),
    ),
    *_changes("task", '"0" * 64, 4)', ('"0" * 64, "4")', "says n='4'"), ('"xyz", 4)', "is not pinned")),
    *_changes("task", "class Parity(Task)", ("class Parity", "is no harness.Task")),
    *_changes("task", "class Parity(Task)", ("1 / 0\n\n\nclass Parity(Task)", "ZeroDivisionError")),
]  # fmt: skip
MISTAKES = [*METHODS, *TASKS]
HARMLESS = [
    *_changes(
        "method", _RETURN, ("        return kl.double()\n", ""), ("        print('step')\n        return kl\n", "")
    ),
    *_changes("method", _NEEDS, (f"{_NEEDS}    def helper(self): return 3\n", ""), (f"{_NEEDS}    note = 'a'\n", "")),
    *_changes("method", _TEACHER, ("[Source.TEACHER]", ""), ("(Source.STUDENT,)", "")),
    *_changes("method", "@dataclass(frozen=True)\n", ("print('hello')\n\n\n@dataclass(frozen=True)\n", "")),
    *_changes("task", _GRADE, ('        print(text)\n        return Verdict(problem.id, 0, 1, "x")\n', "")),
    *_changes("task", "        return found\n", ("        return tuple(found)\n", "")),
    *_changes("task", _DOC, (f"{_DOC}    def helper(self): return 3\n", ""), (f"{_DOC}    licence = 'MIT'\n", "")),
]
