"""Python in a scratch project, as `manage.py shell` has it: one process, any number of snippets.

Run by path with the project's own interpreter, in the project's directory; it imports nothing of this application.
"""

import contextlib
import json
import os
import sys
import traceback


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    sys.path[0] = os.getcwd()
    import django

    django.setup()
    names: dict = {}
    for line in sys.stdin:
        answer = {"result": None, "error": None}
        names.pop("result", None)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                exec(compile(json.loads(line), "<snippet>", "exec"), names)
            answer["result"] = names.get("result")
            text = json.dumps(answer, default=str)
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            text = json.dumps(
                {
                    "result": None,
                    "error": f"{type(error).__name__}: {error}",
                    "traceback": traceback.format_exc(),
                }
            )
        answers.write(text + "\n")


if __name__ == "__main__":
    main()
