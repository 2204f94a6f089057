"""The API's document, /api/openapi.json: what FastAPI knows of the routes, and what the door answers to any of them.

A route says by itself what is its own: parameters, bodies (`openapi_extra`), refusals (`responses=refusals(404)`) and the shape
of its answer (`responses={200: shows(...)}`).
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from monitoring.servers.tavern.security import PUBLIC

PROBLEM = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "text"],
            "properties": {
                "code": {"type": "string"},
                "text": {"type": "string"},
                **{
                    name: {"type": ["string", "null"]} for name in ("message", "type", "param")
                },  # as OpenAI's clients read it
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
WHY = {
    400: "A wrong request, or a Host that is no name of this Tavern.",
    401: "The token is wrong, or missing where one is asked for.",
    403: "Another site asked for it.",
    404: "There is no such thing.",
    409: "Not now, or not with this one; the text says why.",
    413: "The body has more bytes than are taken.",
    414: "The address has more bytes than are taken.",
    415: "A file of a kind that is not taken.",
    416: "More ranges than are sent at once.",
    422: "A parameter is missing or out of its bounds.",
    429: "The box is asked too much.",
    431: "More headers than are taken.",
    502: "The Oracle's connection broke.",
    503: "Not ready; the text says why.",
    504: "The Oracle has fallen silent.",
    507: "There is no room on the disk.",
    508: "A Tavern asks this one, which would ask a box again.",
}
OF_THE_DOOR = (400, 401, 403, 413, 414, 416, 431)
NO_BODY = ("get", "head")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of answers that say why not, for the `responses` of a route."""
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": WHY[status], "content": {"application/json": {"schema": reference}}}
        for status in statuses
    }


def shows(
    schema: dict[str, Any], description: str = "Done.", kind: str = "application/json", **links: str
) -> dict[str, Any]:
    """An answer's description, for the `responses` of a route. `links`: OPERATION_PARAMETER="the place of its value"."""
    told = {"description": description, "content": {kind: {"schema": schema}}}
    if links:
        told["links"] = {name: _link(name, place) for name, place in links.items()}
    return told


def _link(name: str, place: str) -> dict[str, Any]:
    operation, _, parameter = name.rpartition("_")
    return {"operationId": operation, "parameters": {parameter: f"$response.body#/{place}"}}


def streamed() -> dict[int | str, dict[str, Any]]:
    """What an answer of the Oracle may be: whole, a stream, or why there is none."""
    kinds = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}}
    return {200: {"description": "The answer.", "content": kinds}, **refusals(404, 409, 429, 502, 503, 504, 508)}


TALK = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "properties": {
                        "model": {"type": "string", "minLength": 1},
                        "messages": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["role", "content"],
                                "properties": {
                                    "role": {"enum": ["system", "user", "assistant"]},
                                    "content": {"type": "string"},
                                },
                            },
                        },
                        "stream": {"type": "boolean"},
                        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 4096},
                        "tools": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["type", "function"],
                                "properties": {
                                    "type": {"const": "function"},
                                    "function": {
                                        "type": "object",
                                        "required": ["name"],
                                        "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                                    },
                                },
                            },
                        },
                        "tool_choice": {"enum": ["auto", "none"]},
                        "parallel_tool_calls": {"type": "boolean"},
                    },
                }
            }
        },
    }
}


def thing(*names: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has at least `names` (of any type) and `properties`."""
    whole = {name: {} for name in names} | properties
    return {"type": "object", "required": list(whole), "properties": whole}


def many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole, made once. The pages are for people and not in it."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for fastapis in ("HTTPValidationError", "ValidationError"):
            schemas.pop(fastapis, None)
        schemas["Problem"] = PROBLEM
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": app.state.rules.cookie},
        }
        known = [{"bearer": []}, {"cookie": []}]
        made["security"] = known if app.state.rules.token_required else [{}, *known]
        _name_links(made["paths"])
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        app.openapi_schema = made
    return app.openapi_schema


_ABOUT = (
    "On loopback no token is needed unless `tavern.require_token` is set; a script without a browser may then change "
    "things, too. A browser must come from the Tavern's own pages, or bring the token as a bearer."
)


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    known = refusals(
        *OF_THE_DOOR, *((422,) if "422" in answers else ()), *((503, 507) if method not in NO_BODY else ())
    )
    operation["responses"] = answers | {
        str(status): text for status, text in known.items() if status == 422 or str(status) not in answers
    }
    for given in operation.get("parameters", []):
        if given["in"] == "query":
            given["schema"] = _without_null(given["schema"])
    if path in PUBLIC:
        operation["security"] = []


def _name_links(paths: dict[str, Any]) -> None:
    """Routes link to others by the name of their function; the document's operations have longer ones."""
    operations = [operation for of_path in paths.values() for operation in of_path.values()]
    known = {operation["summary"].lower().replace(" ", "_"): operation["operationId"] for operation in operations}
    for operation in operations:
        for told in operation["responses"].values():
            for link in told.get("links", {}).values():
                link["operationId"] = known[link["operationId"]]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What is left out of a query is not there; it cannot be null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return (
        {**kinds[0], **{key: value for key, value in schema.items() if key != "anyOf"}} if len(kinds) == 1 else schema
    )
