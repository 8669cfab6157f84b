import type { Edge } from './edge.ts';
import { makeVoice } from './edge.ts';
import { askViews, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { type Given, textOf, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `release`: undoes holds at once, also those that a failed restore keeps. */
export const verb: Verb = {
  usage: 'release --run ID | --all [--json]',
  help: `Releases what is held, at once, also with the daemon down, and also what a failed restore keeps.

  --run ID             what this run holds
  --all                what every run holds
${OPERATOR_HELP}`,
  options: { ...OPERATOR_OPTIONS, run: { type: 'string' }, all: { type: 'boolean' } },
  start,
};

function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  const runId = textOf(given, 'run');
  const isAll = given.values.all === true;
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  if (isAll === (runId !== undefined)) throw wrongUsage('release: expected either --run ID or --all');
  return askViews(given, edge, async (views, _loaded, signal) => {
    const answer = await views.release(runId === undefined ? { all: true } : { runId }, signal);
    const voice = makeVoice(edge, 'out');
    if (given.values.json === true) await show(given, edge, answer, () => '');
    else for (const note of answer.notes) await voice.say(note);
    if (answer.exitCode !== 0 || answer.message !== undefined)
      await voice.say(answer.message ?? `exit code ${answer.exitCode}`);
    return answer.exitCode;
  });
}
