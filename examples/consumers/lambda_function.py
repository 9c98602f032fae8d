"""A consumer in the style of AWS Lambda that takes each record once, however often it arrives.

It reads envelopes (`envelope = true` of a source): gateway, source and sequence together name a record for good. What a
record leads to is stored under that name in one step, and only if nothing is there yet; so a record that arrives again, also
much later and in another invocation, changes nothing. Deploy it with a DynamoDB table whose partition key is the string `id`
and whose name is in the environment variable RESULTS_TABLE; tests run it with SQLite.
"""

import base64
import json
import os
import sqlite3
import sys


def record_id(envelope):
    """The name of a record: never given twice, not even across restarts of the gateway."""
    return f"{envelope['gateway']}/{envelope['source']}/{envelope['sequence']}"


class DynamoResults:
    """Results in DynamoDB."""

    def __init__(self, table):
        import boto3

        self.table = boto3.resource("dynamodb").Table(table)

    def add(self, identifier, result):
        """Stores a result unless it is there; tells whether it was new."""
        try:
            self.table.put_item(
                Item={"id": identifier, "result": json.dumps(result)},
                ConditionExpression="attribute_not_exists(id)",
            )
        except self.table.meta.client.exceptions.ConditionalCheckFailedException:
            return False
        return True


class SqliteResults:
    """Results in SQLite."""

    def __init__(self, path):
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("CREATE TABLE IF NOT EXISTS results (id TEXT PRIMARY KEY, result TEXT NOT NULL)")

    def add(self, identifier, result):
        """Stores a result unless it is there; tells whether it was new."""
        done = self.database.execute("INSERT OR IGNORE INTO results VALUES (?, ?)", (identifier, json.dumps(result)))
        return done.rowcount == 1


def handler(event, _context, results=None):
    """Takes a batch of a Kinesis stream. What fails is named, and Lambda brings it again (ReportBatchItemFailures)."""
    results = results or DynamoResults(os.environ["RESULTS_TABLE"])
    new = 0
    for record in event["Records"]:
        try:
            envelope = json.loads(base64.b64decode(record["kinesis"]["data"]))
            new += results.add(record_id(envelope), envelope["data"])
        except Exception as error:  # everything behind it comes again too, in its order
            print(f"record {record['kinesis']['sequenceNumber']}: {error}", file=sys.stderr)
            return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]}], "new": new}
    return {"batchItemFailures": [], "new": new}
