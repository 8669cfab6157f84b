import { describeConfig, shownOf } from '../config.ts';
import { SETTING_KEYS } from '../config-schema.ts';
import { secretsOf } from '../core/secret.ts';
import type { Edge } from './edge.ts';
import { configOf, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { type Given, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `config`: the effective settings and where each came from. */
export const verb: Verb = {
  usage: 'config [--json]',
  help: `Prints every setting and where it came from; secrets are masked. What is unknown is an error.

${OPERATOR_HELP}`,
  options: OPERATOR_OPTIONS,
  start,
};

async function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  const loaded = configOf(given, edge, 'strict');
  const secrets = secretsOf(edge.env);
  const settings = SETTING_KEYS.map((key) => [
    key,
    { value: shownOf(key, loaded.written[key], secrets), origin: loaded.origins[key].name },
  ]);
  await show(given, edge, Object.fromEntries(settings) as object, () => describeConfig(loaded, secrets));
  return 0;
}
