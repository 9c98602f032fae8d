"""Creates Kinesis streams, puts records and reads them back with boto3; one JSON value per line of output.

kinesis.py ENDPOINT create STREAM SHARDS
kinesis.py ENDPOINT read STREAM COUNT SECONDS    waits until COUNT records are there, then prints all
kinesis.py ENDPOINT shards STREAM    prints all shards as the endpoint lists them, page after page
kinesis.py ENDPOINT put STREAM READ_TIMEOUT KEY=TEXT...    one PutRecords request; prints its answer or its error
"""

import base64
import json
import sys
import time

import boto3
import botocore.config
import botocore.exceptions


def connect(endpoint, **settings):
    # A retry would hide from the test what the server answered.
    config = botocore.config.Config(retries={"total_max_attempts": 1}, **settings)
    return boto3.client("kinesis", region_name="eu-west-1", endpoint_url=endpoint, config=config)


def create(endpoint, stream, shards):
    client = connect(endpoint)
    client.create_stream(StreamName=stream, ShardCount=int(shards))
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def read(endpoint, stream, count, seconds):
    client = connect(endpoint)
    deadline = time.monotonic() + float(seconds)
    iterators, ranges = {}, {}
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        answer = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        iterators[shard["ShardId"]] = answer["ShardIterator"]
        ranges[shard["ShardId"]] = shard["HashKeyRange"]
    found = 0
    while True:
        new = 0
        for shard, iterator in iterators.items():
            answer = client.get_records(ShardIterator=iterator, Limit=10000)
            iterators[shard] = answer["NextShardIterator"]
            new += len(answer["Records"])
            for record in answer["Records"]:
                show(
                    shard=shard,
                    sequence_number=record["SequenceNumber"],
                    partition_key=record["PartitionKey"],
                    data=base64.b64encode(record["Data"]).decode(),
                    first=ranges[shard]["StartingHashKey"],
                    last=ranges[shard]["EndingHashKey"],
                )
        found += new
        if new == 0:
            if found >= int(count) or time.monotonic() >= deadline:
                return
            time.sleep(0.05)


def shards(endpoint, stream):
    client = connect(endpoint)
    page = client.list_shards(StreamName=stream)
    while True:
        for shard in page["Shards"]:
            show(**shard)
        if "NextToken" not in page:
            return
        page = client.list_shards(NextToken=page["NextToken"])


def put(endpoint, stream, read_timeout, *records):
    client = connect(endpoint, connect_timeout=5, read_timeout=float(read_timeout))
    pairs = [record.split("=", 1) for record in records]
    try:
        answer = client.put_records(
            StreamName=stream, Records=[{"PartitionKey": key, "Data": text.encode()} for key, text in pairs]
        )
        if "Records" in answer:
            show(failed=answer["FailedRecordCount"], records=[record.get("ErrorCode") for record in answer["Records"]])
        else:
            # boto3 takes every status 200 for a success, whatever the body.
            show(error="no answer to PutRecords")
    except botocore.exceptions.ClientError as error:
        show(code=error.response["Error"]["Code"], status=error.response["ResponseMetadata"]["HTTPStatusCode"])
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        show(error=type(error).__name__)


def show(**values):
    print(json.dumps(values))


endpoint, action, *arguments = sys.argv[1:]
{"create": create, "read": read, "shards": shards, "put": put}[action](endpoint, *arguments)
