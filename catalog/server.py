"""What a database server is like for us: asked once, for the doctor."""

import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from catalog import database
from proxy.errors import CatalogFailed

# What one proxy may open at its busiest: catalog, access log and jobs 15 each, workflow records 30.
_CONNECTIONS = 95

_QUESTIONS = """
SELECT current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding,
       current_setting('synchronous_commit') AS commits,
       current_setting('fsync') AS fsync,
       clock_timestamp() AS moment,
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls,
       inet_server_addr() IS NOT NULL AS network,
       has_database_privilege(current_database(), 'CREATE') AS schemas,
       has_schema_privilege(current_user, current_schema(), 'CREATE') AS tables,
       EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm') AS trigrams,
       EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm') AS trigrams_there,
       pg_is_in_recovery() AS standby,
       current_setting('max_connections')::int AS connections,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``seconds``: to connect and ask. ``moment``: its clock. ``problems``:
    what will not work, ``doubts``: what works worse than it should; both for people."""

    version: str
    seconds: float
    moment: datetime
    tls: bool
    network: bool
    problems: tuple[str, ...]
    doubts: tuple[str, ...]


def look(url: str, password: database.Password | None = None) -> ServerFacts:
    """Connect to a PostgreSQL server and ask it. Changes nothing. Raises ``DatabaseAway``, ``CatalogFailed``."""
    engine = database.open_engine(url, password=password, connections=1)
    begun = time.monotonic()
    try:
        with engine.connect() as connection:
            return _facts(connection, begun)
    except SQLAlchemyError as error:
        raise database.refusal(error, engine, CatalogFailed) from error
    finally:
        engine.dispose()


def _facts(connection: Connection, begun: float) -> ServerFacts:
    row = connection.execute(text(_QUESTIONS)).one()
    problems, doubts = [], []
    if row.encoding != "UTF8":
        problems.append(f"its encoding is {row.encoding}, not UTF8: names of files and machines do not fit in")
    if row.standby:
        problems.append("it is a standby, which takes no writes")
    if not row.tables or not row.schemas:
        problems.append("the user may not create tables and schemas in this database")
    if not row.trigrams and not row.trigrams_there:
        problems.append("the extension pg_trgm is not installed on the server")
    if row.fsync != "on" or row.commits == "off":
        doubts.append("fsync or synchronous_commit is off: a power cut can take what was told to be done")
    if row.network and not row.tls:
        doubts.append("the connection is not encrypted")
    if row.connections - row.connected < _CONNECTIONS:
        doubts.append(f"only {row.connections - row.connected} of {row.connections} connections are free")
    seconds = time.monotonic() - begun
    return ServerFacts(row.version, seconds, row.moment, row.tls, row.network, tuple(problems), tuple(doubts))
