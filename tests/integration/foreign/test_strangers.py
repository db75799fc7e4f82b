"""The two foreign programs with each other: that they speak the published contract does not depend on ours."""

from tests.integration.foreign.conftest import Start


async def test_the_foreign_client_and_server_understand_each_other(stranger: Start) -> None:
    async with stranger("server.py") as server:
        port = (await server.line())["port"]
        async with stranger("client.py", f"127.0.0.1:{port}") as client:
            await client.send({"tool_call": {"tool_name": "t", "arguments_json": "{}"}})
            assert await server.next("tool_call") == {"tool_name": "t", "arguments_json": "{}"}
            await server.send({"tool_result": {"result_json": "1"}}, {"stop": {"reason": "Timeout"}})
            assert await client.next("tool_result") == {"result_json": "1"}
            assert await client.next("stop") == {"reason": "Timeout"}
            await client.send({"content": {"text": "x", "is_finish": True}})
            client.half_close()
            assert (await client.rest())[-1]["status"] == "OK"
