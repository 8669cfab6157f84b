/** Ends a hook and all its children in a pod, by a second exec. */
import { OperationalError } from '../core/errors.ts';
import { endAll, isWholeFinding, type Quarry, readFinding, searchFor } from './end-marked.ts';
import type { Api } from './kubernetes-api.ts';
import type { Pod } from './kubernetes-objects.ts';
import { findPod, runningIn } from './kubernetes-pods.ts';
import { runInPod } from './kubernetes-socket.ts';

const QUESTION_MS = 10_000;
const SEARCH_MS = 20_000;
const MOST_BYTES = 1024 * 1024;

/** Ends what carries the mark; resolves to why that could not be done. What is gone has no processes. */
export async function endMarked(
  { api, pod, container }: { readonly api: Api; readonly pod: Pod; readonly container: string },
  quarry: Quarry,
): Promise<string | undefined> {
  const doing = 'look for what a hook left running';
  const { name, uid } = pod.metadata;
  try {
    return await endAll(async (word, known) => {
      let text = '';
      const task = { doing, pod: name, container, argv: searchFor(quarry, word, known) };
      const life = new AbortController();
      const timer = setTimeout(() => life.abort(), SEARCH_MS);
      try {
        const end = await runInPod(
          api,
          task,
          async ({ stream, bytes }) => {
            if (stream === 'out' && text.length < MOST_BYTES) text += Buffer.from(bytes).toString();
            if (isWholeFinding(text)) life.abort(); // whatever else keeps its output open
          },
          life.signal,
        );
        if (isWholeFinding(text)) return readFinding(text, known).alive;
        const why = end.status === 'ended' ? `the search ended with exit code ${end.exitCode}` : end.why;
        throw new OperationalError('workload-failed', `${doing} in pod ${name}: ${why}`);
      } finally {
        clearTimeout(timer);
      }
    });
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    if (error.code === 'engine-unavailable') return error.message;
    const now = await findPod(
      api,
      { key: `pod/${name}`, instance: uid ?? '', name },
      AbortSignal.timeout(QUESTION_MS),
    ).catch(() => null);
    const isGone = now === undefined || (now !== null && runningIn(now, container) === undefined);
    return isGone ? undefined : error.message;
  }
}
