"""Creates a Firehose stream that writes to a bucket, and reads the bucket, with boto3; one JSON value per line of output.

firehose.py ENDPOINT create STREAM BUCKET
firehose.py ENDPOINT read BUCKET    prints what each object holds, in the order in which they were written
"""

import base64
import json
import sys

import boto3

endpoint, command, *arguments = sys.argv[1:]
s3 = boto3.client("s3", region_name="eu-west-1", endpoint_url=endpoint)
if command == "create":
    stream, bucket = arguments
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    boto3.client("firehose", region_name="eu-west-1", endpoint_url=endpoint).create_delivery_stream(
        DeliveryStreamName=stream,
        DeliveryStreamType="DirectPut",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::123456789012:role/firehose",
            "BucketARN": f"arn:aws:s3:::{bucket}",
        },
    )
else:
    objects = s3.list_objects_v2(Bucket=arguments[0]).get("Contents", [])
    for found in sorted(objects, key=lambda found: found["LastModified"]):
        data = s3.get_object(Bucket=arguments[0], Key=found["Key"])["Body"].read()
        print(json.dumps({"data": base64.b64encode(data).decode()}))
