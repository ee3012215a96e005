"""What a caller is told who gets no answer: a status, a code for machines, a sentence for people; never a trace."""

from __future__ import annotations

from typing import Any, Final

STATUSES: Final = {
    400: "the body is not JSON",
    401: "no known API key",
    403: "the key lacks the role",
    404: "no such thing",
    405: "the path does not know this method",
    408: "the body did not arrive in time",
    409: "refused; what was served before is still served",
    413: "the body is too large",
    415: "the body is compressed: send it as it is",
    422: "the request breaks its schema",
    429: "the rate of this key is used up",
    500: "a bug; the request id finds it in the log",
    503: "too busy, or the log cannot be written; ask again",
}


class Problem(Exception):
    """An answer that is none."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s

    def document(self, request_id: str) -> dict[str, Any]:
        """The body."""
        return {"error": {"code": self.code, "message": self.message, "request_id": request_id}}
