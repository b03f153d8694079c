"""Checks of the options for TLS in a store's URL, when a tally is made.

redis-py reads them when it connects. Without the checks, a missing file would be reported at
the first mark, after the whole timeout, as a server that cannot be reached.
"""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check_tls"]

#: The modules that redis-py imports for these options.
_MODULES: Final = {
    "ssl_validate_ocsp": ("cryptography", "requests"),
    "ssl_validate_ocsp_stapled": ("OpenSSL", "cryptography", "requests"),
}


def check_tls(settings: Mapping[str, Any]) -> None:
    """Raise unless connections can be secured with these settings.

    Raises:
        InvalidValueError: a file cannot be read, or OpenSSL does not accept an option, or the
            content of its file.
    """
    option = settings.get
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificates := option("ssl_ca_certs"):
        _try("ssl_ca_certs", lambda: context.load_verify_locations(cafile=certificates))
    if folder := option("ssl_ca_path"):
        # OpenSSL accepts a missing folder.
        _try("ssl_ca_path", lambda: next(Path(folder).iterdir(), None))
    if data := option("ssl_ca_data"):
        _try("ssl_ca_data", lambda: context.load_verify_locations(cadata=data))
    _check_own_certificate(context, settings)
    if ciphers := option("ssl_ciphers"):
        _try("ssl_ciphers", lambda: context.set_ciphers(ciphers))
    _check_ocsp(settings)


def _check_own_certificate(context: ssl.SSLContext, settings: Mapping[str, Any]) -> None:
    certificate, key = settings.get("ssl_certfile"), settings.get("ssl_keyfile")
    if key and not certificate:
        raise InvalidValueError("the store's URL has ssl_keyfile, which needs ssl_certfile")
    for name in ("ssl_certfile", "ssl_keyfile"):
        if name in settings:
            _try(name, Path(settings[name]).read_bytes)  # OpenSSL does not name the file
    if certificate:
        # Without a password, OpenSSL would ask for one at the terminal.
        password = settings.get("ssl_password", str)
        _try(
            "ssl_certfile, ssl_keyfile or ssl_password",
            lambda: context.load_cert_chain(certificate, key, password),
        )


def _check_ocsp(settings: Mapping[str, Any]) -> None:
    wanted = [name for name in _MODULES if settings.get(name)]
    if len(wanted) > 1:
        raise InvalidValueError(f"the store's URL has {' and '.join(wanted)}; only one may be true")
    for name in wanted:
        for module in _MODULES[name]:
            if importlib.util.find_spec(module) is None:
                raise InvalidValueError(
                    f"the store's URL has {name}, for which redis-py needs the module {module}"
                )
    if "ssl_validate_ocsp_stapled" in wanted and not (
        settings.get("ssl_certfile") and settings.get("ssl_keyfile")
    ):
        raise InvalidValueError(
            "the store's URL has ssl_validate_ocsp_stapled, which needs ssl_certfile and "
            "ssl_keyfile"
        )


def _try(option: str, call: Callable[[], object]) -> None:
    """Call a function; if it fails, raise an `InvalidValueError` that names the option."""
    try:
        call()
    except ssl.SSLError as error:
        problem = getattr(error, "reason", None) or type(error).__name__
    except (OSError, ValueError, TypeError) as error:
        problem = type(error).__name__
    else:
        return
    # Not as its cause: its message may quote the option.
    raise InvalidValueError(f"the store's URL has {option} that cannot be used ({problem})")
