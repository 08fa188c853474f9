"""A webhook: one POST, and what was answered.  Any 2xx is done; nothing is followed, and nothing is sent twice in one task."""

import http.client
from urllib.parse import urlsplit

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.scaling import Webhook
from dislocate.host.programs import last_words
from dislocate.host.web import open_connection
from dislocate.host.work import Failure, Work

ANSWER_LIMIT = 16 * 1024  # bytes that are read of an answer


def look(_work: Work, resource: Webhook) -> TaskOutcome:
    return TaskOutcome(TaskResult.UNTOLD, words=f"would POST to {resource.url}")


def apply(_work: Work, resource: Webhook) -> TaskOutcome:
    url = urlsplit(resource.url)
    headers = {"User-Agent": "dislocate", "Accept": "*/*", "Connection": "close", **resource.headers}
    place = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection = open_connection(url.scheme, url.hostname or "", url.port, True)
        try:
            connection.request("POST", place, body=resource.body.encode(), headers=headers)
            answer = connection.getresponse()
            body = answer.read(ANSWER_LIMIT)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failure("apply", f"POST {resource.url}: {error}") from None
    said = f"HTTP {answer.status} {answer.reason}".rstrip()
    words = last_words(body)
    if not 200 <= answer.status < 300:
        raise Failure("apply", f"POST {resource.url}: {said}" + (f": {words}" if words else ""), answer.status)
    return TaskOutcome(TaskResult.CHANGED, words=said, code=answer.status)


def revert(_work: Work, resource: Webhook) -> TaskOutcome:
    return TaskOutcome(TaskResult.LEFT, words=f"what {resource.url} did cannot be undone from here")
