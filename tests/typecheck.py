"""The runtime type checker of the tests: beartype, with int accepted where float is declared."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
