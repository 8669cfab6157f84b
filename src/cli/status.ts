import type { StatusView } from '../core/views.ts';
import type { Edge } from './edge.ts';
import { askViews, makeTable, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { type Given, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `status`: which runs are open, what is held, and why. */
export const verb: Verb = {
  usage: 'status [--json]',
  help: `Shows which runs are open, what is held, since when, and why it is not released.

${OPERATOR_HELP}`,
  options: OPERATOR_OPTIONS,
  start,
};

function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  return askViews(given, edge, async (views, _loaded, signal) => {
    await show(given, edge, await views.status(signal), describe);
    return 0;
  });
}

function describe({ version, since, engine, runs, holds }: StatusView): string {
  const daemon = since === undefined ? 'the daemon is down' : `up since ${since}`;
  const reach = engine.reachable
    ? engine.kind
    : `${engine.kind}, does not answer${engine.why === undefined ? '' : `: ${engine.why}`}`;
  const runRows = runs.map((run) => [
    run.id,
    run.job,
    run.operation,
    run.phase,
    run.outcome ?? '',
    run.openedAt,
    run.distrust.join('; '),
  ]);
  const holdRows = holds.map((hold) => [
    hold.workload,
    hold.kind,
    hold.status,
    hold.heldAt,
    hold.runs.join(','),
    hold.why ?? '',
  ]);
  return [
    makeTable([[`sidehook ${version}`, daemon, `engine: ${reach}`]]),
    tableOf('runs', ['RUN', 'JOB', 'OPERATION', 'PHASE', 'OUTCOME', 'OPENED', 'NOT TRUSTED'], runRows),
    tableOf('holds', ['WORKLOAD', 'HOLD', 'STATUS', 'SINCE', 'RUNS', 'WHY NOT RELEASED'], holdRows),
  ].join('\n');
}

function tableOf(what: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows.length === 0 ? `${what}: none\n` : makeTable([head, ...rows]);
}
