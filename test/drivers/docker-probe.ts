/** Runs in a container, as the sidecar does: looks once, and prints what it saw. Its argument: DockerOptions as JSON. */
import { openDocker } from '../../src/drivers/docker.ts';

await using driver = await openDocker(JSON.parse(process.argv[2] ?? ''));
console.log(JSON.stringify(await driver.look([], AbortSignal.timeout(30_000))));
