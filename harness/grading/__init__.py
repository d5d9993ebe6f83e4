"""Grading engines: mathematical answers, programs, judged responses. None of them imports torch."""
