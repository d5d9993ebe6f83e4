"""Reads the data of a recipe: the pools that its methods train on, without prompts that fill the context.

:func:`summary` describes the training data before any work: counts, content hash, the first example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.errors import BadInput
from harness.method import Method, ReferencePoint
from harness.models import alignment, chat_format
from harness.models.chat_format import TextCodec
from harness.models.files import MICRO, PROBE, ModelFiles, text_codec
from harness.models.pair import Pair
from harness.recipe import Recipe
from harness.task import Task
from harness.training import job, teacher_prompt, verdicts
from harness.training.job import TrainingData
from harness.training_data import examples, plain_prompts
from harness.training_data.left_out import OVERLAP_WORDS, Room, context_of, fitting, overlap, room_of
from harness.types import Example, Prompt, Source

LOOKED_AT = 32  # responses paired before training, as a test
ENOUGH = 0.9  # of the student's tokens; below this share of pairs a run prints a line


def read(chosen: Recipe, methods: Sequence[Method], pair: Pair, tasks: Sequence[Task]) -> TrainingData:
    """The prompts, the labelled and the validation examples, each loaded only if some method reads it.

    Examples that hold a problem of ``tasks`` are refused, dropped or kept, as ``data.contaminated`` says.

    Raises BadInput for unreadable or missing data, and for data of which nothing fits.
    """
    student, teacher = pair.student, pair.teacher
    texts = {source for method in methods for source in job.sources_of(method, chosen.training)}
    sources = chosen.data
    for method in methods:
        _has_estimator(method, chosen)
        # A schedule that follows the validation loss needs held-out examples.
        if method.needs.validate_every and sources.validation is None:
            raise BadInput(
                f"method {method.name} follows the loss on held-out examples and recipe {chosen.name} has none; "
                "set data.validation"
            )
    if held_out := measures_divergence(chosen, methods):
        _can_be_held_out(chosen, methods)
    # Models that give a distribution read whole sequences; a teacher of texts only reads its prompts.
    reads = held_out or any(job.reads_tokens(m) for m in methods)
    readers = [student, teacher] if reads and teacher is not None else [student]
    longest = room_of(chosen.training.max_tokens, readers)
    data = TrainingData([], [], checker=examples.checker(sources.prompts), longest=longest.tokens)
    data.same = examples.same_step(sources.prompts)
    if any(validity_of(method) == "success" or method.needs.rewards for method in methods):
        data.grader = verdicts.grader_of(sources)
    # The pools that some method reads, without the examples that leave no room for an answer.
    codec = text_codec(student)
    unwritten = codec is not None and codec.tokenizer.chat_template is None
    read_of: dict[str, examples.ExamplePool] = {}
    found_of: dict[str, list[Example]] = {}
    for name, source, labelled, needed in (
        ("prompts", sources.prompts, False, bool(texts - {Source.DATA})),
        ("labelled", sources.labelled, True, Source.DATA in texts or any(map(job.privileged, methods))),
        ("validation", sources.validation, True, held_out or any(m.needs.validate_every for m in methods)),
    ):
        if not needed or source is None:
            continue
        pool = examples.read(source, sources, labelled=labelled, limit=sources.limit, written=unwritten)
        fitted, warning = fitting(pool.examples, longest, student, f"data.{name}")
        data.warnings += [warning] if warning else []
        if name == "prompts" and Source.TEACHER in texts and teacher is not None:
            fitted, warning = fitting(fitted, room_of(longest.tokens, [teacher]), teacher, f"data.{name}")
            data.warnings += [warning] if warning else []
        read_of[name], found_of[name] = pool, fitted
    # What a record says about them, after examples that hold a test problem are gone.
    _check(found_of, tasks, sources.contaminated, data)
    for name, fitted in found_of.items():
        setattr(data, name, fitted)
        data.descriptions[name] = read_of[name].description
        left_out = len(read_of[name].examples) - len(fitted)
        data.facts[name] = {**read_of[name].facts, "examples": len(fitted), "sha256": examples.fingerprint(fitted)}
        data.facts[name] |= {"left_out": left_out} if left_out else {}
        if codec is not None and fitted:  # as a task's first prompt is checked
            data.warnings += [f"data.{name}: {w}" for w in chat_format.check_prompts(codec, [fitted[0].prompt])]
    for method in methods:
        if job.privileged(method):
            _room_for_teacher(method, chosen, data, student)
        if method.needs.pairing is not None:
            _pairs_up(method, pair, data)
    return data


def _can_be_held_out(chosen: Recipe, methods: Sequence[Method]) -> None:
    """Raises BadInput where ``training.divergence_every`` cannot be measured."""
    if chosen.data.validation is None:
        raise BadInput("training.divergence_every measures on held-out examples: set data.validation")
    if any(map(job.privileged, methods)):
        raise BadInput("training.divergence_every does not support methods that give the teacher its own prompt")
    if chosen.teachers:
        raise BadInput("training.divergence_every supports only one teacher: remove it")


def _check(found_of: dict[str, list[Example]], tasks: Sequence[Task], contaminated: str, data: TrainingData) -> None:
    """Checks the overlap of the pools with the tasks; drops examples from ``found_of`` as ``contaminated`` says."""
    for task in tasks if found_of else ():
        shared = overlap(found_of, task)
        if shared is None:
            continue
        data.overlaps[task.title] = shared.facts()
        whole = {problem for problem, *_ in shared.whole}
        if whole:
            problem, name, row = shared.whole[0]
            held = f"data.{name}: row {row} holds problem {problem} of {task.title}"
            held += f" ({len(whole)} of its {shared.problems} problems are in the training data)"
            if contaminated == "refuse":
                raise BadInput(f"{held}; remove such rows, or set data.contaminated to drop (or keep, recorded)")
            if contaminated == "drop":
                gone = {(name, row) for _, name, row in shared.whole}
                for name, examples_of in found_of.items():
                    found_of[name] = [e for e in examples_of if (name, e.id) not in gone]
                    if not found_of[name]:
                        raise BadInput(f"data.{name}: every row holds a problem of {task.title}; give other data")
                data.warnings.append(f"{len(gone)} training examples with a problem of {task.title} are left out")
            else:
                data.warnings.append(f"{held}; they are trained on, as data.contaminated=keep asks")
        others = {problem for problem, *_ in shared.shared} - whole
        if others and task.data.world == "real":
            data.warnings.append(
                f"{len(others)} of {shared.problems} problems of {task.title} share {OVERLAP_WORDS} words in a row "
                f"with the training data"
            )


def _room_for_teacher(method: Method, chosen: Recipe, data: TrainingData, student: ModelFiles) -> None:
    """Raises BadInput if the teacher's own prompts cannot be made, or leave no room for a response in its context."""
    asking, what = method.needs.asking, f"row of data.labelled={chosen.data.labelled},"
    assert asking is not None, "a privileged method asks"
    teacher_prompt.check(asking, data.labelled, what)
    context, codec = context_of(student), text_codec(student)
    if context is None or codec is None:
        return
    longest = Room(context - chosen.rollout.max_new_tokens, "")
    prompts = [replace(e, prompt=teacher_prompt.prompt_for(e, asking)) for e in data.labelled]
    if full := longest.left_out(prompts, codec):
        raise BadInput(
            f"method {method.name}: {len(full)} of {len(prompts)} prompts of the teacher leave less than "
            f"rollout.max_new_tokens={chosen.rollout.max_new_tokens} of the context of {context} tokens (the first is "
            f"row {full[0].id}); lower it, shorten the template, or remove these rows"
        )


def _pairs_up(method: Method, pair: Pair, data: TrainingData) -> None:
    """Raises BadInput if the teacher cannot read the texts in its own tokens, or no token has a pair."""
    several = next((e for e in data.labelled if e.taught > 1), None)
    if several is not None:
        raise BadInput(
            f"method {method.name} reads one answer per row, but row {several.id} of data.labelled teaches "
            f"{several.taught}: give rows with one answer each"
        )
    codecs = text_codec(pair.student), text_codec(pair.teacher) if pair.teacher is not None else None
    if pair.words is not None or codecs[0] is None or codecs[1] is None:
        return  # one tokenizer
    responses = [e.response for e in data.labelled[:LOOKED_AT] if e.response] or [PROBE]
    aligner = alignment.TextAligner(codecs[0], codecs[1])
    shares = [aligner.share(text) for text in responses]
    if not any(shares):
        raise BadInput(
            f"method {method.name}: in none of {len(responses)} texts do a token of student {pair.student.id} and one "
            f"of teacher {pair.teacher.id if pair.teacher else 'none'} end at one place: the teacher's tokenizer does "
            "not keep the text; take another teacher"
        )
    if (mean := sum(shares) / len(shares)) < ENOUGH:
        data.warnings.append(
            f"only {mean:.0%} of the student's tokens pair with tokens of the teacher; {method.name} learns from these"
        )


def measures_divergence(chosen: Recipe, methods: Sequence[Method]) -> bool:
    """Whether the recipe requests a held-out divergence and some method trains."""
    trained = any(not isinstance(method, ReferencePoint) for method in methods)
    return trained and chosen.training.divergence_every is not None


def validity_of(method: Method) -> str | None:
    """The estimator that scores the proposals of a method; None if it has none."""
    how = job.proposing_of(method)
    return None if how is None else how.validity


def _has_estimator(method: Method, chosen: Recipe) -> None:
    """Raises BadInput if the data lacks the checker or grader that scores the method's proposals."""
    estimator, prompts = validity_of(method), chosen.data.prompts
    generated = prompts.startswith(MICRO)
    if estimator == "checker" and examples.checker(prompts) is None:
        lacks = f"a step checker and the data {prompts} has none"
    elif (estimator == "success" or method.needs.rewards) and not generated and chosen.data.grader is None:
        readers = verdicts.readers_of(chosen.data)
        rows = f"; {', '.join(readers)} can read them" if readers else ""
        lacks = f"a grader of answers to {prompts}: set data.grader to the task whose rows these are{rows}"
    else:
        return
    without = f"--set {method.without_checker}, or " if method.without_checker else ""
    raise BadInput(f"method {method.name} needs {lacks}; use {without}the micro world's data")


def summary(data: TrainingData, codec: TextCodec | None) -> Iterator[str]:
    """One line per pool, and the first training example as the student reads it."""
    pools = {"prompts": data.prompts, "labelled": data.labelled, "validation": data.validation}
    for name, description in data.descriptions.items():
        yield f"data.{name}: {len(pools[name]):,} examples of {description}; sha256 {data.facts[name]['sha256'][:12]}"
    first = next((pools[name][0] for name in ("labelled", "prompts") if pools[name]), None)
    if first is not None and codec is not None:
        yield f"the first training example is {_rendered(first, codec)}"
        if first.prompt.system and chat_format.system_turn(codec.tokenizer) == chat_format.MERGED:
            yield "the chat template has no system turn: its text goes in front of the user's first turn"


def unlike_prompts(data: TrainingData, prompt: Prompt, codec: TextCodec | None) -> list[str]:
    """How the task's first prompt differs in form from the training prompts.

    The micro world is skipped: its prompts have the forms of its tasks.
    """
    if codec is None:
        return []
    pools = {"labelled": data.labelled, "prompts": data.prompts}
    read = {
        name: pool for name, pool in pools.items() if pool and not str(data.facts[name]["source"]).startswith(MICRO)
    }
    differences = (plain_prompts.differences(pool[0].prompt, prompt, codec) for pool in read.values())
    return list(dict.fromkeys(line for lines in differences for line in lines))


def _rendered(example: Example, codec: TextCodec) -> str:
    """Prompt and response with their special tokens, and the number of learnt tokens."""
    end = f"{codec.tokenizer.decode([codec.end_id])} (id {codec.end_id})"
    if example.response is None:
        return f"{codec.render(example.prompt)!r}, which a model answers; an answer ends with {end}"
    prompt, response, learnt = codec.example_ids(example)
    texts = [codec.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False) for ids in (prompt, response)]
    share = f" ({sum(learnt)} of {len(learnt)} tokens learnt)" if learnt else ""
    return f"{texts[0]!r}, answered {texts[1]!r}{share}; an answer ends with {end}"
