"""What the processes of a run agree on: queues, model, labels, the task."""

from __future__ import annotations

from fallback.answer import LabelOption, Task

# One review each; asked for with RequestReview.
QUEUE = "single"
# Two reviews by distinct people, a third where they disagree; parked by Predict on a model of that name.
MODEL = "double"
QUEUES = (QUEUE, MODEL)
LABELS = ("a", "b", "c")
TASK = Task(question="Which one?", labels=tuple(LabelOption(label=label, key=label) for label in LABELS))
