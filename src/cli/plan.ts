import { randomUUID } from 'node:crypto';
import { parseRequest } from '../core/request.ts';
import type { PlanView } from '../core/views.ts';
import type { Edge } from './edge.ts';
import { askViews, makeTable, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { type Given, textOf, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `plan`: what a signal would lead to, with nothing done. */
export const verb: Verb = {
  usage: 'plan OPERATION [STATE] [--job J] [--json]',
  help: `Shows what a signal would lead to, in order, and does nothing. STATE is pre if unsaid.

  --job J              default: default
${OPERATOR_HELP}`,
  options: { ...OPERATOR_OPTIONS, job: { type: 'string' } },
  start,
};

function start(given: Given, edge: Edge): Promise<number> {
  const [operation, state = 'pre'] = given.words;
  wordsOf(given, 'OPERATION', ...(given.words.length > 1 ? ['STATE'] : []));
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  return askViews(given, edge, async (views, { config }, signal) => {
    const raw = { version: 1, id: randomUUID(), operation, state, job: textOf(given, 'job') ?? 'default' };
    const request = parseRequest(raw, {
      client: 'operator',
      operations: config.operations,
      unattendedMs: config.lease.unattendedMs,
      longestLeaseMs: config.hold.maxMs,
    });
    await show(given, edge, await views.plan(request, signal), describe);
    return 0;
  });
}

function describe({ operation, state, job, steps, notes }: PlanView): string {
  const rows = steps.map((step, index) => [`${index + 1}`.padStart(3), step.do, step.what, step.where, step.why ?? '']);
  const what = steps.length === 0 ? '  nothing to do\n' : makeTable(rows);
  return `${operation} ${state}, job ${job}\n${what}${makeTable(notes.map((note) => [`note: ${note}`]))}`;
}
