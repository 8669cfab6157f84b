import { OperationalError } from '../core/errors.ts';
import type { HealthView } from '../core/views.ts';
import type { Edge } from './edge.ts';
import { configOf, controlSocketOf, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { makeRemoteViews } from './remote-views.ts';
import { type Given, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `health`: the health check of the image. */
export const verb: Verb = {
  usage: 'health [--json]',
  help: `Exits with 0 when the daemon does its work, else with 1 and why.

${OPERATOR_HELP}`,
  options: OPERATOR_OPTIONS,
  start,
};

/** Longer than a busy daemon takes, shorter than what engines allow a check. */
const PATIENCE_MS = 5_000;

async function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  const socketPath = controlSocketOf(configOf(given, edge, 'lenient'));
  const health = await healthOf(socketPath);
  await show(given, edge, health, describe);
  return health.ok ? 0 : 1;
}

async function healthOf(socketPath: string): Promise<HealthView> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  try {
    return await makeRemoteViews(socketPath).health(patience);
  } catch (error) {
    if (error === patience.reason)
      return { ok: false, why: [`no answer at ${socketPath} within ${PATIENCE_MS / 1000}s`] };
    if (!(error instanceof OperationalError)) throw error;
    return { ok: false, why: [error.message] };
  }
}

function describe({ ok, why }: HealthView): string {
  return `${ok ? 'healthy' : 'not healthy'}${why.map((line) => `\n  ${line}`).join('')}\n`;
}
