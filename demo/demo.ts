/** `npm run demo`: what sidehook promises, seen at work on this machine, in a temporary folder, in under a minute. */
import { showContainer } from './container.ts';
import { showHost } from './host.ts';
import { openStage } from './stage.ts';

await using stage = await openStage();
await showHost(stage);
await showContainer(stage);
stage.finish();
