"""A Modbus device that is there: `modbus_server.py tcp PORT` or `modbus_server.py rtu PATH`.

Units 1 and 2 have the same registers, unit 2 with the number 2 where it can be told. Input register 100 is not there.
"""
import asyncio
import struct
import sys

from pymodbus import FramerType
from pymodbus.server import StartAsyncSerialServer, StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def words(form, number):
    data = struct.pack(form, number)
    return list(struct.unpack(f">{len(data) // 2}H", data))


def device(unit):
    f32 = words(">f", 230.1)
    holding = (
        f32  # 0
        + words(">i", -100_000 - unit)[::-1]  # 2: the low word first
        + [2301, 65535 - unit + 1]  # 4, 5
        + words(">Q", 2**63 + unit)  # 6
        + words(">d", 1.5)  # 10
    )
    bits = [SimData(0, values=[True, False, True] + [False] * 13, datatype=DataType.BITS)]
    inputs = [SimData(0, values=[7, 8, 9], datatype=DataType.REGISTERS)]
    return SimDevice(unit, simdata=(bits, bits, [SimData(0, values=holding, datatype=DataType.REGISTERS)], inputs))


async def main():
    devices = [device(1), device(2)]
    if sys.argv[1] == "tcp":
        await StartAsyncTcpServer(devices, address=("127.0.0.1", int(sys.argv[2])))
    else:
        await StartAsyncSerialServer(devices, framer=FramerType.RTU, port=sys.argv[2], baudrate=19200)


asyncio.run(main())
