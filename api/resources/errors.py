"""`…/errors`: the last errors that algorithms returned for calls. Whoever may read the logs of builds may read them."""

from flask import Response

from api.authentication import caller, readable_algorithm, require_known_owner
from api.routing import algorithm_route, json_response, list_of, v1_blueprint
from api.schemas.calls import LoggedErrorResponse, present_logged_error
from shared.algorithms import readable_algorithms
from shared.db.engine import database
from shared.invocation.call_errors import errors_of_algorithm, errors_of_owner

blueprint = v1_blueprint("errors")


@algorithm_route(blueprint, "/errors", ["GET"])
@blueprint.output(list_of(LoggedErrorResponse))
def list_algorithm_errors(algorithm_name: str) -> Response:
    """List the last errors that calls of the algorithm ended with, newest first, without the inputs of the calls."""
    with database().reading() as session:
        query = errors_of_algorithm(readable_algorithm(session, algorithm_name))
        return json_response([present_logged_error(error) for error in session.scalars(query)])


@blueprint.get("/users/<username>/errors")
@blueprint.output(list_of(LoggedErrorResponse))
def list_owner_errors(username: str) -> Response:
    """List the last errors that calls of an owner's algorithms ended with, newest first."""
    if not caller().owns(username):
        caller().require_owner(username)
    with database().reading() as session:
        require_known_owner(session, username)
        query = errors_of_owner(username, readable_algorithms(caller()))
        return json_response([present_logged_error(error) for error in session.scalars(query)])
