"""The experiment on vcrd's family of readings, as ``results/vcrd/plan.md`` says it.

``python -m results.scripts.vcrd.run STAGE`` runs a stage and continues where it was stopped;
``python -m results.scripts.vcrd.page`` writes the map, the tables and the comparisons from the records that exist.
"""
