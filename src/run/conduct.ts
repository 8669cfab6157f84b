import { ERRORS, exitCodeOfError, OperationalError, unreachable } from '../core/errors.ts';
import type { Delivery } from '../core/ports.ts';
import type { Request } from '../core/request.ts';
import type { Answer } from '../core/result.ts';
import { isUnwritten, writeOrLog } from './engine.ts';
import { retryPending } from './pending.ts';
import { answerInspect, answerPost, answerStarted } from './post.ts';
import { answerPre } from './pre.ts';
import type { Shared } from './shared.ts';

/**
 * Carries out one request and answers it, once; the same request again gets the same answer (P6). Never rejects but for
 * a bug. One that the sidecar's end cut off stays unanswered in the journal, and is taken up at the next start.
 */
export async function conduct(delivery: Delivery, shared: Shared): Promise<void> {
  const { journal } = shared.tools;
  const { request } = delivery;
  const known = journal.answerOf(request.id);
  if (known !== undefined) return delivery.answer(known);
  const underWay = shared.underWay.get(request.id);
  if (underWay !== undefined)
    return underWay.then(
      (answer) => delivery.answer(answer),
      () => undefined,
    );

  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  promise.catch(() => undefined);
  shared.underWay.set(request.id, promise);
  try {
    const answer = await take(delivery, shared);
    resolve(answer);
    await delivery.answer(answer);
  } catch (error) {
    shared.underWay.delete(request.id);
    reject(error);
    if (!shared.stopping.signal.aborted) throw error;
  }
}

async function take(delivery: Delivery, shared: Shared): Promise<Answer> {
  const { log } = shared.tools;
  const { id, operation, state, job } = delivery.request;
  log.debug('request taken', { request: id, operation, state, job });
  const answer = await attempt(delivery, shared).catch((error: unknown): Answer => {
    if (!(error instanceof OperationalError)) throw error;
    return { exitCode: exitCodeOfError(error), message: `${operation} ${state}: ${error.message}`, notes: [] };
  });
  const level = answer.exitCode === 0 ? 'info' : 'warn';
  log[level]('answered', { request: id, operation, state, job, exitCode: answer.exitCode, message: answer.message });
  keepAnswer(delivery.request, delivery.sender.ref, answer, shared);
  return answer;
}

/** Has the answer stay to be read; until it is written, whoever asks again is answered from memory. */
export function keepAnswer(request: Request, leaseRef: string, answer: Answer, shared: Shared): void {
  const { journal } = shared.tools;
  writeOrLog(shared.tools, () => {
    if (journal.answerOf(request.id) === undefined) journal.answered(request, leaseRef, answer);
    shared.underWay.delete(request.id);
  });
  if (isUnwritten(shared.tools)) retryPending(shared);
}

async function attempt(delivery: Delivery, shared: Shared): Promise<Answer> {
  const { request, sender } = delivery;
  const { state } = request;
  try {
    shared.tools.journal.takeRequest(request, sender.ref);
  } catch (error) {
    // A journal that cannot be written refuses a `pre`, and never a release.
    if (state !== 'post' || !(error instanceof OperationalError)) throw error;
    shared.tools.log.error('request not journalled, going on', { why: error.message });
  }
  if (shared.stopping.signal.aborted && state !== 'post') throw shared.stopping.signal.reason;
  switch (state) {
    case 'pre':
      return answerPre(delivery, shared);
    case 'post':
      return answerPost(delivery, shared);
    case 'inspect':
      return answerInspect(delivery, shared);
    case 'started':
      return answerStarted(delivery, shared);
    case 'captured':
      return { exitCode: ERRORS.configuration.exit, message: 'captured: not supported by this version', notes: [] };
    default:
      return unreachable(state);
  }
}
