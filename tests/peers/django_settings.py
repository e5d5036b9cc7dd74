"""Settings for Django's own tests: two databases on the server of GEVENTPOOL_PEER_URL, and a runner that
writes what became of each test to GEVENTPOOL_PEER_REPORT.
"""

import json
import os
import unittest
from pathlib import Path
from urllib.parse import urlsplit

from django.test.runner import DiscoverRunner

_URL = urlsplit(os.environ["GEVENTPOOL_PEER_URL"])
_NAME = os.environ["GEVENTPOOL_PEER_DATABASE"]


def _database(name):
    database = {
        "ENGINE": os.environ["GEVENTPOOL_PEER_ENGINE"],
        "NAME": _URL.path.strip("/"),
        "USER": _URL.username,
        "PASSWORD": _URL.password,
        "HOST": _URL.hostname,
        "PORT": str(_URL.port),
        "TEST": {"NAME": name},
    }
    if "mysql" in database["ENGINE"]:
        database["TEST"]["CHARSET"] = "utf8mb4"
        database["TEST"]["COLLATION"] = "utf8mb4_general_ci"
    return database


DATABASES = {"default": _database(_NAME), "other": _database(f"{_NAME}_other")}
SECRET_KEY = "of tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "tests.peers.django_settings.Runner"


class _Result(unittest.TextTestResult):
    """Keeps what became of each test; one whose subtests fail has failed."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.outcomes = {}

    def _note(self, test, outcome, text=""):
        if self.outcomes.get(test.id(), ("passed",))[0] == "passed":
            self.outcomes[test.id()] = (outcome, text)

    def addSuccess(self, test):  # noqa: N802
        super().addSuccess(test)
        self._note(test, "passed")

    def addSkip(self, test, reason):  # noqa: N802
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addExpectedFailure(self, test, error):  # noqa: N802
        super().addExpectedFailure(test, error)
        self._note(test, "skipped", "is expected to fail")

    def addUnexpectedSuccess(self, test):  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "passes unexpectedly")

    def addFailure(self, test, error):  # noqa: N802
        super().addFailure(test, error)
        self._note(test, "failed", self._exc_info_to_string(error, test))

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, error):  # noqa: N802
        super().addSubTest(test, subtest, error)
        if error is not None:
            self._note(test, "failed", self._exc_info_to_string(error, test))


class Runner(DiscoverRunner):
    """Django's own, with a report."""

    def get_resultclass(self):
        return _Result

    def suite_result(self, suite, result, **keywords):
        report = Path(os.environ["GEVENTPOOL_PEER_REPORT"])
        report.write_text(json.dumps(result.outcomes))
        return super().suite_result(suite, result, **keywords)
