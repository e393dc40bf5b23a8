"""The back office: what people who run Kassa see of it, and whether it is well.

It promises: reads, and changes nothing but its own records (runs of the checks, texts, the demo's rows).
What a person does from here is done by the wing whose matter it is.

Others call `overview.dashboard` and its other lists, `doctor.findings`, `health.report`, `invariants.run`.
"""
