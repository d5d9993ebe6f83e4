"""Evaluates students: opens a task, generates completions, grades and scores them; reads samples of other tools."""
