/** What went wrong, above the photo. */

import type { JSX } from "preact";
import type { Failure } from "./hooks";
import { Cross } from "./icons";

interface Props {
  /** Of the engine, which may be asked again. */
  failure: Failure | null;
  /** About files. */
  messages: readonly string[];
  onRetry(): void;
  onClose(): void;
}

export function Problems({ failure, messages, onRetry, onClose }: Props): JSX.Element | null {
  if (!failure && !messages.length) return null;
  return (
    <div class="problem" role="alert">
      <div>
        {failure && <p>{failure.message}</p>}
        {messages.map((text) => (
          <p key={text}>{text}</p>
        ))}
      </div>
      {failure?.again && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
      {!failure && (
        <button type="button" aria-label="Close" class="quiet" onClick={onClose}>
          <Cross />
        </button>
      )}
    </div>
  );
}
