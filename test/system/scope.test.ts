import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { composeLabels } from '../drivers/docker-bench.ts';
import { docker, engineHost, openStack, type Stack } from '../support/engine.ts';
import { openPrivateEngine, type PrivateEngine } from '../support/engine-private.ts';
import { openSidecar, type Sidecar } from '../support/sidecar.ts';

/** An engine of its own: here everything on it is in scope. */
describe('whose containers are held', () => {
  const others = engineHost();
  let engine: PrivateEngine | undefined;
  before(
    async () => {
      engine = await openPrivateEngine();
      process.env.DOCKER_HOST = engine.host; // this file is a process of its own
    },
    { timeout: 10 * 60_000 },
  );
  after(async () => {
    process.env.DOCKER_HOST = others;
    await engine?.[Symbol.asyncDispose]();
  });

  /** In each of two projects one that asks to be held and one that does not; one of no project; one that is mislabelled. */
  async function openCrowd(): Promise<Stack> {
    const stack = await openStack('scope');
    const hold = { 'sidehook.hold': 'stop' };
    for (const project of ['one', 'two']) {
      const labels = composeLabels(stack.named(project), 'db');
      await stack.run({ name: `${project}-db`, labels: { ...labels, ...hold } });
      await stack.run({ name: `${project}-plain`, labels: { ...labels, 'com.docker.compose.service': 'plain' } });
    }
    const labels = composeLabels(stack.named('odd'), 'odd');
    await stack.run({ name: 'odd', labels: { ...labels, 'sidehook.hold': 'sleep' } });
    await stack.run({ name: 'loose', labels: hold });
    return stack;
  }

  async function running({ name, label }: Stack): Promise<readonly string[]> {
    const listed = await docker('ps', '--filter', `label=${label}`, '--format', '{{.Names}}');
    return listed
      .split('\n')
      .map((one) => one.slice(`${name}-`.length))
      .toSorted((a, b) => a.localeCompare(b));
  }

  const ALL = ['loose', 'odd', 'one-db', 'one-plain', 'two-db', 'two-plain'];

  async function runAround(sidecar: Sidecar, stack: Stack) {
    const pre = sidecar.cli('signal', 'backup', 'pre');
    assert.equal(await pre.ended, 0, pre.err());
    const meanwhile = await running(stack);
    const post = sidecar.cli('signal', 'backup', 'post');
    assert.equal(await post.ended, 0, post.err());
    assert.deepEqual(await running(stack), ALL);
    return { meanwhile, told: pre.err() };
  }

  it('everybody’s, with scope host; what is wrong in another project is passed over, and named', async () => {
    await using stack = await openCrowd();
    await using sidecar = await openSidecar({ scope: 'host' });
    const { meanwhile, told } = await runAround(sidecar, stack);
    assert.deepEqual(meanwhile, ['odd', 'one-plain', 'two-plain']);
    assert.match(told, new RegExp(`${stack.named('odd')}: passed over: .*sidehook\\.hold`));
  });

  it('those of the projects that are named, and nobody else’s', async () => {
    await using stack = await openCrowd();
    const scope = ['one', 'two'].map(stack.named).join(',');
    await using sidecar = await openSidecar({ scope });
    const { meanwhile, told } = await runAround(sidecar, stack);
    assert.deepEqual(meanwhile, ['loose', 'odd', 'one-plain', 'two-plain']);
    assert.doesNotMatch(told, /odd/);

    await using strict = await openSidecar({ scope: `${scope},${stack.named('odd')}` });
    const refused = strict.cli('signal', 'backup', 'pre');
    assert.equal(await refused.ended, 78, refused.err()); // who names a project means it
    assert.match(refused.err(), new RegExp(stack.named('odd')));
    assert.deepEqual(await running(stack), ALL);
  });
});
