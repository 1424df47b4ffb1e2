"""pyarrow.flight, the raw client: Handshake, GetFlightInfo with a Flight SQL command, DoGet."""

import argparse
import json
import sys

import pyarrow.flight as flight

TYPE_URL = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"


def field(number, payload):
    """A length-delimited protobuf field."""
    length, size = b"", len(payload)
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def statement(sql):
    """google.protobuf.Any around CommandStatementQuery { query = 1 }."""
    return flight.FlightDescriptor.for_command(field(1, TYPE_URL) + field(2, field(1, sql.encode())))


def run(client, options, sql):
    info = client.get_flight_info(statement(sql), options)
    tables = [client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    for table in tables:
        if not table.schema.equals(info.schema):
            sys.exit(f"GetFlightInfo promised {info.schema}, DoGet streamed {table.schema}")
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="admin")
    parser.add_argument("--password", required=True)
    parser.add_argument("--sql", action="append", required=True, help="repeat for several statements")
    parser.add_argument("--any-password", action="store_true", help="the server runs insecure: do not expect a wrong password to fail")
    arguments = parser.parse_args()

    client = flight.FlightClient(f"grpc://{arguments.host}:{arguments.port}")
    if not arguments.any_password:
        try:
            client.authenticate_basic_token(arguments.user, arguments.password + "-wrong")
            sys.exit("a wrong password was accepted")
        except flight.FlightUnauthenticatedError:
            pass
        try:
            client.get_flight_info(statement("SELECT 1"))
            sys.exit("a call without credentials was answered")
        except flight.FlightUnauthenticatedError:
            pass
    header = client.authenticate_basic_token(arguments.user, arguments.password)
    options = flight.FlightCallOptions(headers=[header], timeout=60)
    answers = []
    for sql in arguments.sql:
        tables = run(client, options, sql)
        answers.append([list(row.values()) for table in tables for row in table.to_pylist()])
    refused = None
    try:
        run(client, options, "INSERT INTO measurements VALUES ('x')")
    except flight.FlightError as error:
        refused = str(error).split("\n")[0]
    if refused is None:
        sys.exit("an INSERT was accepted")
    print(json.dumps({"client": "pyarrow", "answers": answers, "insert_refused": refused}, default=str))


if __name__ == "__main__":
    main()
