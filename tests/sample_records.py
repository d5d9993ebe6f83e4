"""Small made-up records for the tests of what is done with records."""

from harness.records.record import fingerprint, identity_of, run_id

NOTE = "reconstruction from the public abstract; its formula was not available to us"

NOTE = "reconstruction from the public abstract; its formula was not available to us"


def make_record(method="vcrd", task="humaneval@micro", seed=0, scores=(1.0, 0.0, 1.0, 1.0), attempt=0, **changes):
    """A record as ``Store.add`` takes it, for one student that got ``scores``. ``changes`` replace fields.

    ``who`` replaces fields of the method, such as its role.
    """
    student, teacher = changes.get("student", "micro-student"), "micro-teacher"
    spec = {
        "method": {"name": method, "settings": changes.get("settings", {})},
        "student": {"id": teacher if method == "teacher" else student},
        "teacher": None if method in ("sft", "untouched", "teacher") else {"id": teacher},
        "seed": seed,
    }
    spec |= changes.pop("recipe", {})
    measured = {"task": task, "version": "1", "n": len(scores)} | changes.pop("protocol", {})
    protocol = measured | {"hash": fingerprint(measured)}
    variant = changes.pop("variant", None)
    settings = changes.pop("settings", {})
    evaluates = {"untouched": "student", "teacher": "teacher"}.get(method)
    trained = "control" if settings.get("shuffle") else "competitor"
    who = {
        "name": method,
        "variant": variant,
        "paper": "",
        "role": "reference" if evaluates else trained,
        "evaluates": evaluates,
        "baseline": method == "sft",
        "reconstruction": method == "vcrd",
        "note": "reconstruction from the public abstract; its formula was not available to us"
        if method == "vcrd"
        else "",
        "settings": settings,
    } | changes.pop("who", {})
    identity = identity_of(spec, protocol)
    return {
        "run_id": run_id(who, task, seed, identity, attempt),
        "identity": identity,
        "attempt": attempt,
        "kind": "measured",
        "method": who,
        "task": task,
        "world": "micro" if task.endswith("@micro") else "real",
        "family": "code",
        "metric": "pass@1",
        "seed": seed,
        "student": student,
        "teacher": teacher if spec["teacher"] else None,
        "parameters": {"student": 1000, "teacher": 5000},
        "spec": spec,
        "training_id": fingerprint(spec)[:16],
        "protocol": protocol,
        "score": sum(scores) / len(scores),
        "interval": [0.0, 1.0],
        "interval_method": "Wilson",
        "counts": {"correct": sum(scores), "total": len(scores), "errors": 0, "truncated": 1},
        "cost": {
            "teacher_forward_tokens": 1000,
            "generated_tokens": 500,
            "student_tokens": 2000,
            "seconds": 1.5,
            "peak_memory_bytes": 2**20,
            "eval_seconds": 0.5,
            "eval_generated_tokens": 100,
            "steps": 10,
        },
        "convention": {"kl direction": "forward", "temperature": 1.0},
        "provenance": {"commit": None, "seeds": [seed]},
        "warnings": [],
        "supersedes": None,
    } | changes


def make_rows(scores=(1.0, 0.0, 1.0, 1.0), samples=1):
    """Completions with verdicts; ``scores`` run over the samples of the first problem, then the second, …"""
    return [
        {
            "problem_id": f"p{index // samples}",
            "sample": index % samples,
            "text": f"answer {index}",
            "tokens": 3,
            "finish": "stop",
            "score": score,
            "reason": "tests",
            "extracted": None,
            "error": False,
        }
        for index, score in enumerate(scores)
    ]
