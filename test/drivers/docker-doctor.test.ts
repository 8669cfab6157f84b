import assert from 'node:assert/strict';
import { mkdtempDisposable } from 'node:fs/promises';
import { createServer, type IncomingMessage, request as openRequest, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Finding } from '../../src/core/finding.ts';
import { openDocker } from '../../src/drivers/docker.ts';
import { startCli } from '../support/cli.ts';
import { type ContainerOptions, docker, engineHost, engineSocket, openStack, type Stack } from '../support/engine.ts';
import { ensureImage } from '../support/images.ts';
import { composeLabels } from './docker-bench.ts';

const ROOT = join(import.meta.dirname, '../..');

type Switches = Readonly<Record<string, 0 | 1>>;
type Rule = (method: string, path: string, on: (name: string) => boolean) => boolean;

/** `/containers/ID/start` -> `start`. */
const verbOf = (path: string): string | undefined => /^\/containers\/[\w.-]+\/(\w+)/.exec(path)?.[1];
const areaOf = (path: string): string => (path.split(/[/?]/)[1] ?? '').replace(/^_/, '').toUpperCase();
const isVerb = (verb: string | undefined, ...verbs: readonly string[]): verb is string =>
  verb !== undefined && verbs.includes(verb);

/** What their own configuration files say. */
const FLAVOURS = {
  tecnativa: (method, path, on) => {
    if (method !== 'GET' && !on('POST')) return false;
    const verb = verbOf(path);
    return (isVerb(verb, 'start', 'stop') && on(`ALLOW_${verb.toUpperCase()}`)) || on(areaOf(path));
  },
  'tecnativa, newer': (method, path, on) => {
    if (method !== 'GET' && !on('POST')) return false;
    const verb = verbOf(path);
    if (verb === 'exec' && !on('ALLOW_EXEC')) return false;
    return (isVerb(verb, 'start', 'stop', 'pause', 'unpause') && on(`ALLOW_${verb.toUpperCase()}`)) || on(areaOf(path));
  },
  linuxserver: (method, path, on) => {
    const verb = verbOf(path);
    if (isVerb(verb, 'start', 'stop')) return on(`ALLOW_${verb.toUpperCase()}`);
    return (method === 'GET' || on('POST')) && on(areaOf(path));
  },
} satisfies Record<string, Rule>;

/** Stands before the engine as a docker-socket-proxy does. */
async function openSocketProxy(flavour: keyof typeof FLAVOURS, switches: Switches) {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await mkdtempDisposable(join(tmpdir(), 'socket-proxy-')));
  const path = join(dir.path, 'docker.sock');
  const on = (name: string): boolean => ({ EVENTS: 1, PING: 1, VERSION: 1, ...switches })[name] === 1;
  const forward = (near: IncomingMessage, answer: ServerResponse): void => {
    const { method = '', url = '', headers } = near;
    if (!FLAVOURS[flavour](method, url, on)) {
      near.resume();
      answer.writeHead(403, { 'content-type': 'text/html' }).end('<html><body><h1>403 Forbidden</h1></body></html>');
      return;
    }
    const body: Buffer[] = [];
    near
      .on('data', (bytes: Buffer) => body.push(bytes))
      .on('end', () => {
        const far = openRequest(
          { socketPath: engineSocket(), method, path: url, headers, agent: false },
          (response) => {
            answer.writeHead(response.statusCode ?? 502, response.headers);
            response.pipe(answer);
          },
        );
        far.on('error', () => answer.destroy());
        far.end(Buffer.concat(body)); // whole: an engine that refuses early reads no more
      });
  };
  const server = createServer(forward);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  stack.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const owned = stack.move();
  return { host: `unix://${path}`, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What doctor finds, on this machine; every use of the engine is a use of ours. */
async function examine(host: string, signal: AbortSignal): Promise<readonly Finding[]> {
  const options = { host, scope: ['none-of-ours'], runDir: '/run/sidehook', stateDir: '/var/lib/sidehook' };
  await using driver = await openDocker(options);
  return await driver.examine(['exec', 'stop', 'pause'], signal);
}

/** The switches that are asked for, by what they are asked for: `stop containers` -> `POST=1`. */
const asked = (findings: readonly Finding[]): Readonly<Record<string, string>> =>
  Object.fromEntries(
    findings.flatMap(({ what, level, says }) => {
      const deed = /^permission to (.+)$/.exec(what)?.[1];
      return deed === undefined || level === 'ok' ? [] : [[deed, says.replace(/^.* set /, '')]];
    }),
  );

describe('doctor before a docker-socket-proxy', () => {
  const areas = { CONTAINERS: 1, IMAGES: 1, EXEC: 1, INFO: 1 } as const;
  const everything = { ...areas, POST: 1, ALLOW_START: 1, ALLOW_STOP: 1, ALLOW_EXEC: 1 } as const;

  for (const flavour of Object.keys(FLAVOURS) as (keyof typeof FLAVOURS)[]) {
    it(`finds nothing missing where every switch that it names is set: ${flavour}`, async ({ signal }) => {
      await using proxy = await openSocketProxy(flavour, everything);
      const findings = await examine(proxy.host, signal);
      assert.deepEqual(asked(findings), {});
      assert.match(findings.find(({ what }) => what === 'engine')?.says ?? '', /^Docker [\d.]+/);
      assert.ok(
        findings.every(({ level }) => level !== 'fail'),
        JSON.stringify(findings),
      );
    });
  }

  type Case = readonly [flavour: keyof typeof FLAVOURS, missing: string, wanted: Readonly<Record<string, string>>];
  const cases: readonly Case[] = [
    ['tecnativa', 'IMAGES', { 'inspect images': 'IMAGES=1' }],
    ['tecnativa', 'EVENTS', { 'follow events': 'EVENTS=1; without it, a lost hold is found up to 10s later' }],
    ['tecnativa', 'EXEC', { 'start an exec': 'EXEC=1', 'ask for an exit code': 'EXEC=1' }],
    [
      'tecnativa',
      'POST',
      {
        'prepare an exec': 'POST=1 (and ALLOW_EXEC=1, where it has that)',
        'start an exec': 'POST=1',
        'stop containers': 'POST=1 (and ALLOW_STOP=1, where it has that)',
        'start containers': 'POST=1 (and ALLOW_START=1, where it has that)',
        'pause containers': 'POST=1',
        'unpause containers': 'POST=1',
      },
    ],
    [
      'linuxserver',
      'CONTAINERS',
      {
        'list containers': 'CONTAINERS=1',
        'inspect containers': 'CONTAINERS=1',
        'prepare an exec': 'CONTAINERS=1 and POST=1 (and ALLOW_EXEC=1, where it has that)',
        'pause containers': 'CONTAINERS=1 and POST=1',
        'unpause containers': 'CONTAINERS=1 and POST=1',
      },
    ],
    ['linuxserver', 'ALLOW_STOP', { 'stop containers': 'ALLOW_STOP=1' }],
    ['linuxserver', 'ALLOW_START', { 'start containers': 'ALLOW_START=1' }],
    [
      'linuxserver',
      'POST',
      {
        'prepare an exec': 'POST=1 (and ALLOW_EXEC=1, where it has that)',
        'start an exec': 'POST=1',
        'pause containers': 'POST=1',
        'unpause containers': 'POST=1',
      },
    ],
    ['tecnativa, newer', 'ALLOW_EXEC', { 'prepare an exec': 'ALLOW_EXEC=1' }],
    ['tecnativa, newer', 'VERSION', {}],
  ];
  for (const [flavour, missing, wanted] of cases) {
    it(`names the switch that is missing: ${flavour} without ${missing}`, async ({ signal }) => {
      await using proxy = await openSocketProxy(flavour, { ...everything, [missing]: 0 });
      const findings = await examine(proxy.host, signal);
      assert.deepEqual(asked(findings), wanted);
      assert.equal(findings.find(({ what }) => what === 'engine')?.level, 'ok');
    });
  }

  it('asks for INFO where it cannot tell without whether it is a container of this engine', async ({ signal }) => {
    await using proxy = await openSocketProxy('tecnativa', { ...everything, INFO: 0 });
    const found = (await examine(proxy.host, signal)).find(({ what }) => what === 'sidecar');
    if (found?.level !== 'ok') assert.match(found?.says ?? '', /set INFO=1$/); // where the tests run on a host, it can
  });

  it('fails for what is used, and warns of what is not', async () => {
    await using proxy = await openSocketProxy('tecnativa', areas);
    await using dir = await mkdtempDisposable(join(tmpdir(), 'doctor-'));
    await using stack = await openStack('doctor');
    await stack.run({ name: 'db', labels: { ...composeLabels(stack.name, 'db'), 'sidehook.hold': 'pause' } });
    const args = ['doctor', '--json', '--scope', stack.name, '--state-dir', dir.path, '--hooks-dir', '/nowhere'];
    await using cli = startCli(args, { DOCKER_HOST: proxy.host });
    assert.equal(await cli.ended, 78, cli.err());
    const { ok, findings } = JSON.parse(cli.out()) as { readonly ok: boolean; readonly findings: readonly Finding[] };
    assert.equal(ok, false);
    const level = (deed: string) => findings.find(({ what }) => what === `permission to ${deed}`)?.level;
    assert.deepEqual(
      ['list containers', 'pause containers', 'unpause containers', 'stop containers', 'prepare an exec'].map(level),
      ['ok', 'fail', 'fail', 'warn', 'warn'],
    );
  });
});

/** What doctor says in a container of the engine, as the service `sidehook` of the stack's project. */
async function examineFromWithin(stack: Stack, options: ContainerOptions) {
  const id = await stack.run({
    image: await ensureImage('node:26-alpine'),
    args: ['node', '/app/src/main.ts', 'doctor', '--json'],
    ...options,
    labels: { ...composeLabels(stack.name, 'sidehook'), ...options.labels },
    volumes: [`${ROOT}:/app:ro`, `${engineSocket()}:/var/run/docker.sock`, ...(options.volumes ?? [])],
  });
  const exitCode = Number(await docker('wait', id));
  const said = await docker('logs', id);
  const findings = (JSON.parse(said) as { readonly findings: readonly Finding[] }).findings;
  const of = (what: string) => findings.filter((one) => one.what === what);
  return { exitCode, findings, of, levels: (what: string) => of(what).map(({ level }) => level) };
}

describe('doctor in a container', () => {
  it('finds nothing to mend in one that is set up as the pages say', async () => {
    await using stack = await openStack('doctor');
    const [shared, state] = [await stack.volume('shared'), await stack.volume('state')];
    await stack.run({
      name: 'backup',
      volumes: [`${shared}:/run/sidehook`],
      labels: composeLabels(stack.name, 'backup'),
    });
    await stack.run({ name: 'db', labels: { ...composeLabels(stack.name, 'db'), 'sidehook.hold': 'stop' } });
    const { exitCode, findings, of } = await examineFromWithin(stack, {
      volumes: [`${shared}:/run/sidehook`, `${state}:/var/lib/sidehook`],
      flags: ['--restart', 'on-failure:1', '--stop-timeout', '60'],
    });
    assert.equal(exitCode, 0, JSON.stringify(findings));
    const odd = findings.filter(({ level }) => level !== 'ok').map(({ what }) => what);
    assert.deepEqual(odd, ['daemon', 'restart policy']); // it is down, and `always` would not let us see its end
    assert.match(of('restart policy')[0]?.says ?? '', /^on-failure: an engine that crashed leaves it down/);
    assert.match(of('clients')[0]?.says ?? '', /-backup shares run\.dir/);
    assert.match(of('state.dir').at(-1)?.says ?? '', new RegExp(`lies on volume ${state}`));
    assert.equal(of('plan backup')[0]?.says, 'hooks: 0, holds: 1');
  });

  it('finds what would break the promises: no restart, no mount, no grace, a client with the state and the socket', async () => {
    await using stack = await openStack('doctor');
    const [shared, state] = [await stack.volume('shared'), await stack.volume('state')];
    const client = {
      name: 'backup',
      volumes: [`${shared}:/run/sidehook`, `${state}:/state`, `${engineSocket()}:/docker.sock`],
      labels: composeLabels(stack.name, 'backup'),
    };
    await stack.run(client);
    const exposed = await examineFromWithin(stack, {
      volumes: [`${shared}:/run/sidehook`, `${state}:/var/lib/sidehook`],
    });
    assert.equal(exposed.exitCode, 78);
    assert.deepEqual(exposed.levels('restart policy'), ['fail']);
    assert.deepEqual(exposed.levels('stop grace period'), ['warn']);
    assert.match(exposed.of('state.dir').at(-1)?.says ?? '', /-backup can write/);
    assert.match(exposed.of('clients').at(-1)?.says ?? '', /-backup has the engine's socket/);

    const bare = await examineFromWithin(stack, {});
    assert.match(bare.of('state.dir').at(-1)?.says ?? '', /is no mount/);
    assert.deepEqual(bare.levels('clients'), ['warn']);

    const anonymous = await examineFromWithin(stack, { flags: ['--volume', '/var/lib/sidehook'] });
    assert.match(anonymous.of('state.dir').at(-1)?.says ?? '', /anonymous volume/);
  });

  it('speaks of the service when it runs in a container of `compose run`', async () => {
    await using stack = await openStack('doctor');
    const labels = composeLabels(stack.name, 'sidehook');
    await stack.run({ name: 'service', labels, flags: ['--restart', 'always', '--stop-timeout', '90'] });
    const { of } = await examineFromWithin(stack, { labels: { 'com.docker.compose.oneoff': 'True' } });
    assert.equal(of('restart policy')[0]?.says, 'always');
    assert.equal(of('stop grace period')[0]?.says, '90s');
  });

  it('is away when the engine does not answer', async () => {
    await using dir = await mkdtempDisposable(join(tmpdir(), 'doctor-'));
    await using cli = startCli(['doctor', '--state-dir', dir.path], { DOCKER_HOST: `${engineHost()}.gone` });
    assert.equal(await cli.ended, 69, cli.err());
    assert.match(cli.out(), /^fail +engine +.*cannot be reached/m);
  });
});
