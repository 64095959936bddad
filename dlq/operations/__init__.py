"""What operators did: replays and discards of many dead letters, edits of one, exports and notes.

Many are chosen once, confirmed with numbers, and sent in steps that can be stopped:

`selection` freezes what is chosen and says beforehand what can be sent; `control` starts, pauses, resumes and cancels;
`step` sends a little at a time; `driver` calls it until everything is sent and its outcome known; `progress` counts.
`edit` sends a copy of one with other arguments; `audit` writes down what sends nothing; `retention` deletes what is old.
"""
