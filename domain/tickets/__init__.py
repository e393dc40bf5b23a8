"""Tickets: issuing and voiding them, what their codes say, and the documents that are made of them.

It promises: a code that Kassa made is known by its seal alone; a PDF shows every letter there is a font
for. Nothing here commits, and nothing is written to a disk.

Others call `issuing.issue`, `issuing.void` and `issuing.read`, `documents.tickets_pdf` and
`documents.calendar`, and find people by `holders.of_event` and `holders.searched`.
"""
