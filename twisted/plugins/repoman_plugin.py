"""What makes ``twistd repoman`` a command."""

from twisted.application.service import ServiceMaker

repoman = ServiceMaker(
    "Repoman",
    "repoman.tap",
    "A RESTful, X.509-authenticated repository of virtual-machine images.",
    "repoman",
)
