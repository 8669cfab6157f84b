/**
 * Runs the tests on a real cluster, which is built and started for them:
 *
 *   node test/kubernetes/run.ts [OPTION OR FILE OF node --test]...   all tests in this folder, or those in the files
 *   node test/kubernetes/run.ts --where-possible                     no failure where there can be no cluster
 *   node test/kubernetes/run.ts --cluster -- COMMAND [ARGUMENT]...   any command, with KUBECONFIG set
 */
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findHelm } from '../helm/helm.ts';
import { runCommand } from '../support/command.ts';
import { say } from '../support/install.ts';
import { type Cluster, openCluster } from './cluster.ts';
import { clusterImages } from './images.ts';
import { findKubeconform } from './kubeconform.ts';
import { prepareParts, whyNoCluster } from './parts.ts';

const TESTS = 'test/kubernetes/**/*.test.ts';
const WHERE_POSSIBLE = '--where-possible';
/** A pod may need half a minute on a busy machine. */
const TEST_MS = 20 * 60_000;
const EX_USAGE = 64;
const EX_CONFIG = 78;

process.exitCode = await run(process.argv.slice(2));

async function run(all: readonly string[]): Promise<number> {
  const args = all.filter((arg) => arg !== WHERE_POSSIBLE);
  const isOptional = args.length < all.length;
  const why = (await whyNoCluster()) || (isOptional && (await whyNoParts()));
  const leaveOut = (reason: string): number => {
    say(`THE TESTS ON A CLUSTER ARE NOT RUN: ${reason}`);
    return isOptional ? 0 : EX_CONFIG;
  };
  if (why) return leaveOut(why);
  const command = args[0] === '--cluster' ? args.slice(args[1] === '--' ? 2 : 1) : testCommand(args);
  const [program, ...rest] = command;
  if (program === undefined) {
    say('usage: node test/kubernetes/run.ts --cluster -- COMMAND [ARGUMENT]...');
    return EX_USAGE;
  }
  const opened = await openPatiently();
  if (typeof opened === 'string') return leaveOut(opened);
  await using cluster = opened;
  return await runCommand(program, rest, cluster.env);
}

/** A cluster, or why there is none: not every machine lets one be made that has all it takes. */
async function openPatiently(): Promise<Cluster | string> {
  const failures: string[] = [];
  while (failures.length < 2) {
    try {
      return await openWithImages();
    } catch (error) {
      failures.push(reasonOf(error));
      say(reasonOf(error));
    }
  }
  return failures.at(-1) ?? '';
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}\n${error.cause.message}` : error.message;
}

/** Why they cannot be had: most of all, there is no network. */
async function whyNoParts(): Promise<string | false> {
  try {
    await prepareParts();
    await findHelm();
    await findKubeconform();
    return false;
  } catch (error) {
    return reasonOf(error);
  }
}

async function openWithImages(): Promise<Cluster> {
  await using workDir = await mkdtempDisposable(join(tmpdir(), 'sidehook-cluster-images-'));
  return await openCluster(await clusterImages(workDir.path));
}

function testCommand(args: readonly string[]): readonly string[] {
  const files = args.every((arg) => arg.startsWith('-')) ? [TESTS] : [];
  const defaults = ['--test-reporter=spec', `--test-timeout=${TEST_MS}`, '--test-concurrency=2'];
  return [process.execPath, '--test', ...defaults, ...args, ...files];
}
