"""The back office: what people who run Kassa, or an event, see of it, and whether Kassa is well.

It promises: it reads, and changes nothing but what is nobody else's (runs of the checks, texts, the demo's
rows, rows of earlier versions brought into today's forms). What a person does from here is done by the wing
whose matter it is.

Others call `overview.dashboard` and its other lists, `doctor.findings`, `health.report`, `invariants.run`.
"""
