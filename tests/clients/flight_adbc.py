"""The ADBC Flight SQL driver: log in, list tables, run a prepared statement with a parameter, ask for a schema."""

import argparse
import json
import sys

import adbc_driver_flightsql.dbapi as flightsql
from adbc_driver_manager import DatabaseOptions


def connect(arguments, password):
    return flightsql.connect(
        f"grpc://{arguments.host}:{arguments.port}",
        db_kwargs={DatabaseOptions.USERNAME.value: arguments.user, DatabaseOptions.PASSWORD.value: password},
        autocommit=True,
    )


def refuses(arguments, password):
    """Whether a password is turned away, at the latest by the first statement."""
    try:
        with connect(arguments, password) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
    except flightsql.Error as error:
        return "unauthenticated" in str(error).lower()
    return False


def tables_of(connection):
    """Schema -> table -> its column names, from adbc_get_objects."""
    found = {}
    for catalog in connection.adbc_get_objects(depth="all").read_all().to_pylist():
        for schema in catalog["catalog_db_schemas"] or []:
            for table in schema["db_schema_tables"] or []:
                columns = [column["column_name"] for column in table["table_columns"] or []]
                found.setdefault(f"{catalog['catalog_name']}.{schema['db_schema_name']}", {})[table["table_name"]] = columns
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", default="admin")
    parser.add_argument("--password", required=True)
    parser.add_argument("--hardware-id", required=True, help="parameter of the prepared statement")
    parser.add_argument("--any-password", action="store_true", help="the server runs insecure: do not expect a wrong password to fail")
    arguments = parser.parse_args()

    if not arguments.any_password and not refuses(arguments, arguments.password + "-wrong"):
        sys.exit("a wrong password was accepted")
    with connect(arguments, arguments.password) as connection:
        statement = "SELECT identifier, value, unit, event_time FROM measurements WHERE hardware_id = ? ORDER BY event_time, identifier"
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters=(arguments.hardware_id,))
            rows = cursor.fetch_arrow_table()
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters=("no-such-device",))
            n_rows_of_nobody = cursor.fetch_arrow_table().num_rows
        with connection.cursor() as cursor:
            promised = cursor.adbc_execute_schema("SELECT hardware_id, n, mean FROM load_profile_15m")
        with connection.cursor() as cursor:
            cursor.adbc_prepare("SELECT * FROM latest WHERE hardware_id = $1")
            cursor.execute("SELECT * FROM latest WHERE hardware_id = $1", parameters=(arguments.hardware_id,))
            n_latest = cursor.fetch_arrow_table().num_rows
        table_schema = connection.adbc_get_table_schema("measurements")
        result = {
            "client": "adbc",
            "vendor": connection.adbc_get_info().get("vendor_name"),
            "table_types": sorted(connection.adbc_get_table_types()),
            "tables": tables_of(connection),
            "rows": [[row["identifier"], row["value"], row["unit"], row["event_time"].isoformat()] for row in rows.to_pylist()],
            "n_rows_of_nobody": n_rows_of_nobody,
            "n_latest": n_latest,
            "schema": {field.name: str(field.type) for field in promised},
            "measurements_columns": table_schema.names,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
