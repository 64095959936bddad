"""Replays and discards of many dead letters: chosen once, confirmed with numbers, sent in steps that can be stopped.

`selection` freezes what is chosen and says beforehand what can be sent; `control` starts, pauses, resumes and cancels;
`step` sends a little at a time; `driver` calls it until everything is sent and its outcome known; `progress` counts.
"""
