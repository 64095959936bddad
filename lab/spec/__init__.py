"""The living specification: which test proves which row of which promise, and how that test ended when it last ran.

A test names what it proves with a marker: the promise, what fails and when, and what happens then. P5 also says what Celery
does by itself:

    @pytest.mark.promise("P2", "relay between mark and publish", "the rescuer requeues the rows")
    @pytest.mark.promise("P5", "hard time limit", "one dead letter", celery="acknowledges it: lost")

A behaviour that one of the articles shows has a marker of its own, see `lab.spec.behaviours`.

`make spec` writes docs/SPEC.md and the failure tables of docs/promises/ from these markers. Idea: executable specifications
as in Gojko Adzic's "Specification by Example", with Python's own syntax tree in place of a second language.
"""
