"""The names of the Celery queues; each has a worker pool of the same name."""


class Queues:
    """The names of the Celery queues."""

    BUILDS = "builds"
    PUSHES = "pushes"
    SERVING = "serving"
    NODES = "nodes"
    MAINTENANCE = "maintenance"
    ALL = (BUILDS, PUSHES, SERVING, NODES, MAINTENANCE)
