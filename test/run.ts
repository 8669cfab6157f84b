/**
 * Runs the tests with a real Docker engine under them:
 *
 *   node test/run.ts [OPTION OR FILE OF node --test]...   all tests, or those in the files
 *   node test/run.ts --unit [OPTION]...                   those that need no engine
 *   node test/run.ts --engine -- COMMAND [ARGUMENT]...    any command, with DOCKER_HOST set
 */
import { availableParallelism } from 'node:os';
import { relative, resolve } from 'node:path';
import { runCommand } from './support/command.ts';
import { NoEngine, openEngine } from './support/engine-choice.ts';
import { BUSYBOX, ensureImage, prepareImages } from './support/images.ts';
import { ensureDockerCli, say } from './support/install.ts';

const ROOT = resolve(import.meta.dirname, '..');
const UNIT_TESTS = 'test/unit/**/*.test.ts';
/** But for those on a cluster, which have a runner of their own (test/kubernetes/run.ts). */
const ALL_TESTS = ['test/*.test.ts', 'test/!(kubernetes|faults)/**/*.test.ts'];
/** Each of these files loads the machine by itself: they come last, one by one. */
const FAULT_TESTS = 'test/faults/*.test.ts';
const TEST_MS = 180_000;
const EX_USAGE = 64;
const EX_CONFIG = 78;

process.exitCode = await run(process.argv.slice(2));

async function run(args: readonly string[]): Promise<number> {
  const [mode, ...rest] = args;
  if (mode === '--engine') return runCommandWithEngine(rest);
  if (mode === '--unit') return runTests([...rest, UNIT_TESTS]);
  if (args.length > 0 && args.every(isUnitTest)) return runTests(args);
  const isWholeSuite = args.every((arg) => arg.startsWith('-'));
  return withEngine(async () => {
    if (!isWholeSuite) return runTests(args);
    await ensureDockerCli(['compose', 'buildx']);
    await prepareImages();
    const exitCode = await runTests([...args, ...ALL_TESTS]);
    return exitCode || runTests([...args, '--test-concurrency=1', FAULT_TESTS]);
  });
}

function isUnitTest(arg: string): boolean {
  return !arg.startsWith('-') && relative(ROOT, resolve(arg)).startsWith('test/unit/');
}

async function runCommandWithEngine(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args[0] === '--' ? args.slice(1) : args;
  if (command !== undefined) return withEngine(() => runCommand(command, rest));
  say('usage: node test/run.ts --engine -- COMMAND [ARGUMENT]...');
  return EX_USAGE;
}

function runTests(args: readonly string[]): Promise<number> {
  const defaults = [
    '--test-reporter=spec',
    `--test-timeout=${TEST_MS}`,
    `--test-concurrency=${availableParallelism()}`,
  ];
  return runCommand(process.execPath, ['--test', ...defaults, ...args]);
}

/** Does `action` with an engine in our environment, and so in that of what we start. */
async function withEngine(action: () => Promise<number>): Promise<number> {
  try {
    await using engine = await openEngine();
    process.env.DOCKER_HOST = engine.host;
    await ensureImage(BUSYBOX);
    return await action();
  } catch (error) {
    if (!(error instanceof NoEngine)) throw error;
    say(error.message);
    return EX_CONFIG;
  }
}
