import { type Edge, untilTold } from './edge.ts';
import { configOf, OPERATOR_HELP, OPERATOR_OPTIONS } from './operator.ts';
import { type Given, type Verb, wordsOf, wrongUsage } from './verb.ts';

const { json: _, ...options } = OPERATOR_OPTIONS;

/** `serve`: the daemon. */
export const verb: Verb = {
  usage: 'serve [options]',
  help: `Takes signals until it is told to end: TERM, INT or HUP, the first in order, the second at once.

${OPERATOR_HELP.replace(/^ +--json.*\n/, '')}`,
  options,
  start,
};

async function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  const loaded = configOf(given, edge, 'strict');
  const { serve } = await import('./serve.ts');
  using stopping = untilTold(edge.posix);
  await serve(loaded, edge, stopping.signal);
  return 0;
}
