"""Reads aggregates back with boto3 and aws_kinesis_agg; one JSON value per line of output.

aggregates.py ENDPOINT read STREAM COUNT SECONDS    waits for COUNT different records, then prints all, shard by shard
aggregates.py ENDPOINT split STREAM SHARD    splits an open shard in the middle of its range
"""

import base64
import hashlib
import json
import sys
import time

import boto3
import botocore.config
from aws_kinesis_agg import DIGEST_SIZE, MAGIC
from aws_kinesis_agg.deaggregator import deaggregate_records, messages_pb2


def connect(endpoint):
    config = botocore.config.Config(retries={"total_max_attempts": 5})
    return boto3.client("kinesis", region_name="eu-west-1", endpoint_url=endpoint, config=config)


def shards_of(client, stream):
    return sorted(client.list_shards(StreamName=stream)["Shards"], key=lambda shard: shard["ShardId"])


def read(endpoint, stream, count, seconds):
    client = connect(endpoint)
    deadline = time.monotonic() + float(seconds)
    iterators, ranges, found = {}, {}, {}
    while True:
        for shard in shards_of(client, stream):
            if shard["ShardId"] not in iterators:
                answer = client.get_shard_iterator(
                    StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
                )
                iterators[shard["ShardId"]] = answer["ShardIterator"]
                hash_keys = shard["HashKeyRange"]
                ranges[shard["ShardId"]] = (int(hash_keys["StartingHashKey"]), int(hash_keys["EndingHashKey"]))
                found[shard["ShardId"]] = []
        new = 0
        for shard, iterator in iterators.items():
            if iterator is None:
                continue
            answer = client.get_records(ShardIterator=iterator, Limit=10000)
            iterators[shard] = answer.get("NextShardIterator")
            new += len(answer["Records"])
            found[shard] += answer["Records"]
        if new == 0:
            records = list(everything(found, ranges))
            if len({record["data"] for record in records}) >= int(count) or time.monotonic() >= deadline:
                for record in records:
                    print(json.dumps(record))
                return
            time.sleep(0.1)


def everything(found, ranges):
    for shard, records in sorted(found.items()):
        for wire in records:
            event = {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "sequenceNumber": wire["SequenceNumber"],
                    "approximateArrivalTimestamp": 0,
                    "partitionKey": wire["PartitionKey"],
                    "data": base64.b64encode(wire["Data"]).decode(),
                }
            }
            inners, ids = deaggregate_records([event]), ids_of(wire["Data"])
            assert len(inners) == len(ids), "the library leaves none out, and makes none"
            for inner, id in zip(inners, ids):
                inner = inner["kinesis"]
                key = inner.get("explicitHashKey") or hashlib.md5(inner["partitionKey"].encode()).hexdigest()
                key = int(key) if inner.get("explicitHashKey") else int(key, 16)
                data = inner["data"]
                first, last = ranges[shard]
                yield {
                    "shard": shard,
                    "wire": wire["SequenceNumber"],
                    "aggregated": bool(inner.get("aggregated")),
                    # The Kinesis Client Library leaves out what is not.
                    "inside": first <= key <= last,
                    "partition_key": inner["partitionKey"],
                    "data": base64.b64decode(data).decode(),
                    "id": id,
                }


def ids_of(data):
    """The tag `id` of each record of the wire's; the library leaves tags out, but knows how they are written."""
    if not data.startswith(MAGIC):
        return [None]
    aggregate = messages_pb2.AggregatedRecord()
    aggregate.ParseFromString(data[len(MAGIC):-DIGEST_SIZE])
    return [next((tag.value for tag in record.tags if tag.key == "id"), None) for record in aggregate.records]


def split(endpoint, stream, shard_id):
    client = connect(endpoint)
    shard = next(shard for shard in shards_of(client, stream) if shard["ShardId"] == shard_id)
    first, last = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
    client.split_shard(StreamName=stream, ShardToSplit=shard_id, NewStartingHashKey=str((first + last + 1) // 2))
    deadline = time.monotonic() + 30
    while client.describe_stream(StreamName=stream)["StreamDescription"]["StreamStatus"] != "ACTIVE":
        assert time.monotonic() < deadline, "the split does not end"
        time.sleep(0.05)


endpoint, action, *arguments = sys.argv[1:]
{"read": read, "split": split}[action](endpoint, *arguments)
